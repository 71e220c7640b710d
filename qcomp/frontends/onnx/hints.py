"""What to do about an op that is not supported."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable

import onnx

from qcomp.frontends.onnx.node import describe
from qcomp.frontends.onnx.table import MICROSOFT, supported_ops
from qcomp.frontends.onnx.unsupported import Unsupported

_NO_LOOP = "unroll the loop when exporting"
_NO_ARC = "Sin, Cos and Tan are supported, their inverses are not"
_SPLIT_OFF = "leave it out of the model and do it on the output, in the calling program"

_HINTS: dict[tuple[str, str], str] = {
    ("", "Loop"): _NO_LOOP,
    ("", "Scan"): _NO_LOOP,
    ("", "RNN"): "use LSTM or GRU",
    ("", "NonMaxSuppression"): _SPLIT_OFF,
    ("", "TopK"): _SPLIT_OFF,
    ("", "NonZero"): "its output shape depends on data; " + _SPLIT_OFF,
    ("", "Unique"): "its output shape depends on data; " + _SPLIT_OFF,
    ("", "Compress"): "with a constant condition it is supported",
    ("", "RoiAlign"): "use Resize of a fixed region",
    ("", "GridSample"): "use Resize, when the grid is regular",
    ("", "DeformConv"): "use Conv",
    ("", "DFT"): "compute the spectrum before the model, or write it as a MatMul with a constant matrix",
    ("", "STFT"): "compute the spectrum before the model, or write it as a Conv with constant weights",
    ("", "MaxUnpool"): "use Resize or ConvTranspose",
    ("", "MaxRoiPool"): "use MaxPool of a fixed region",
    ("", "BitShift"): "multiply or divide by a power of two",
    ("", "Acos"): _NO_ARC,
    ("", "Asin"): _NO_ARC,
    ("", "Atan"): _NO_ARC,
    ("", "BitCast"): "use Cast, if the numbers are to stay",
    ("", "ScatterElements"): "with constant indices it is supported",
    ("", "ScatterND"): "with constant indices it is supported",
    (MICROSOFT, "QAttention"): "quantize with the QDQ format and without attention fusion",
    (MICROSOFT, "Attention"): "export without attention fusion: MatMul and Softmax are supported",
    (MICROSOFT, "MultiHeadAttention"): "export without attention fusion: MatMul and Softmax are supported",
    (MICROSOFT, "MatMulNBits"): "use 8-bit weights with DequantizeLinear",
    (MICROSOFT, "EmbedLayerNormalization"): "export without fusion: Gather, Add and LayerNormalization are supported",
}


def hint(domain: str, op_type: str) -> str:
    """The closest supported form of an op, or the supported ops with the most similar names."""
    known = _HINTS.get((domain, op_type))
    if known:
        return known
    if domain.startswith("ai.onnx."):
        return f"neural-network ops of ONNX's default domain are supported, those of {domain!r} are not"
    if domain not in ("", "ai.onnx", MICROSOFT):
        return f"ops of domain {domain!r} are not part of ONNX; export with standard ops"
    near = difflib.get_close_matches(op_type, [name for _, name in supported_ops()], n=2, cutoff=0.8)
    return f"the closest supported op is {' or '.join(near)}" if near else "rewrite it with ops that are supported"


def no_converter(proto: onnx.NodeProto) -> Unsupported:
    """The error for an op without a converter."""
    return Unsupported("is not supported", where=describe(proto), fix=hint(proto.domain, proto.op_type))


def all_unsupported(errors: Iterable[Unsupported]) -> Unsupported:
    """The first in full, the others by op type and name."""
    first, *rest = errors
    if not rest:
        return first
    others = Counter(str(e).split(":")[0] if ":" in str(e) else str(e) for e in rest)
    return Unsupported(f"{first}; also unsupported: " + ", ".join(others))
