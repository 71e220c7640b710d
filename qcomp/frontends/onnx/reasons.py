"""Why a node test of ONNX is not run: one row for each form that is left out, with its reason."""

from __future__ import annotations

import re

_OP = r"(^|[ :])(ai\.onnx\.ml\.|ai\.onnx\.preview\.|ai\.onnx\.preview\.training\.)?"


def _op(*names: str) -> str:
    """Matches the error of an op that is not supported at all."""
    return _OP + f"({'|'.join(names)}) '[^']*': is not supported"


# (pattern of the importer's error, reason)
_ROWS: tuple[tuple[str, str], ...] = (
    (r"is STRING|a constant of strings", "strings: networks compute on numbers"),
    (
        r"BFLOAT16",
        "bfloat16 at the graph's interface: no such dtype in numpy; constants and intermediate results are fine",
    ),
    (r"FLOAT8|FLOAT4", "8- and 4-bit floats: the compiler's grids are integers"),
    (r"INT4|INT2", "4- and 2-bit integers: constants are taken, computing on them is not supported yet"),
    (r"is a (sequence|optional)", "sequences and optionals: only tensors are values"),
    (_op("SplitToSequence", r"Sequence\w*", r"Optional\w*"), "sequences and optionals: only tensors are values"),
    (_op(r"String\w*", "RegexFullMatch", "TfIdfVectorizer", "LabelEncoder"), "text processing: not part of a network"),
    (_op("ImageDecoder"), "image decoding: not part of a network"),
    (_op("Loop", "Scan"), "loops over a body: unrolled at export"),
    (_op("RNN"), "recurrent layers without gates: no op for them"),
    (r"peepholes", "peepholes of recurrent layers: no op has them"),
    (_op("NonMaxSuppression", "TopK"), "selection of detections: done on the output by the calling program"),
    (_op("Unique", "NonZero"), "output shapes that depend on data: every shape is static"),
    (_op("DFT", "STFT"), "spectra: done before the network, or as a matrix product"),
    (
        _op("GridSample", "RoiAlign", "DeformConv", "MaxUnpool", "Col2Im"),
        "sampling at computed positions: no op for it",
    ),
    (
        _op("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitCast"),
        "operations on bits: no op for them",
    ),
    (_op("Acos", "Asin", "Atan", "Det", "CumProd"), "numerics that networks do not use: no op for it"),
    (_op("TensorScatter"), "writes at computed positions: no op for it"),
    (_op(r"Random\w*"), "random numbers: results are reproducible"),
    (_op("Adam", "Adagrad", "Momentum"), "optimizers: models are compiled for inference"),
    (_op("TreeEnsemble", "Binarizer", "ArrayFeatureExtractor"), "classical machine learning: neural networks only"),
    (_op("FlexAttention"), "a preview op, defined with subgraphs as functions"),
    (r"training mode", "training mode: models are compiled for inference"),
    (r"3 spatial dimensions", "volumes: one and two spatial dimensions are supported"),
    (r"the indices of the maxima", "MaxPool with indices: only its first output is supported"),
    (r"^Einsum '[^']*': equation", "Einsum with an ellipsis or a repeated letter"),
)


def reason_for(error: str) -> str:
    """The reason that belongs to an importer's error; "" for one that no row explains."""
    return next((reason for pattern, reason in _ROWS if re.search(pattern, error)), "")


def reasons() -> tuple[str, ...]:
    """Every reason once, in the order of the table."""
    return tuple(dict.fromkeys(reason for _, reason in _ROWS))
