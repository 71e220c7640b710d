"""Export rules of the ops that compute on floats (and the same ops on plain integers)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qcomp.ir.graph import Node
from qcomp.ir.onnx_export.emitter import Emitter, Rule, out_names
from qcomp.ir.onnx_export.pooling_rules import avg_pool, max_pool
from qcomp.ir.types import DType


def direct(op_type: str, rename: Mapping[str, str] | None = None) -> Rule:
    """The ONNX op of the same meaning; `rename` says which attributes go along, ours -> theirs."""

    def rule(e: Emitter, node: Node) -> None:
        attributes = {theirs: _plain(node.attrs[ours]) for ours, theirs in (rename or {}).items()}
        e.op(op_type, [e.name(v) for v in node.inputs], out_names(node), **attributes)

    return rule


def _plain(value: object) -> object:
    """Attribute values as ONNX has them: booleans are integers."""
    return int(value) if isinstance(value, bool) else value


def _same(*names: str) -> dict[str, str]:
    return {n: n for n in names}


def _clip(e: Emitter, node: Node) -> None:
    x, (lo, hi) = node.input(0), (node.call.float("lo"), node.call.float("hi"))
    if x.dtype.is_float:
        bounds = [e.tensor(_scalar(b, x.dtype), h) for b, h in ((lo, "lo"), (hi, "hi"))]
    else:
        least, most = x.dtype.limits
        inside = max(lo, least), min(hi, most)
        bounds = [e.tensor(_scalar(int(b), x.dtype), h) for b, h in zip(inside, ("lo", "hi"), strict=True)]
    e.op("Clip", [e.name(x), *bounds], node.output.name)


def _scalar(value: float, dtype: DType) -> np.ndarray:
    return np.asarray(value).astype(dtype.numpy)


def _silu(e: Emitter, node: Node) -> None:
    x = e.name(node.input(0))
    e.op("Mul", [x, e.op("Sigmoid", [x])], node.output.name)


def _mod(e: Emitter, node: Node) -> None:
    e.op("Mod", [e.name(v) for v in node.inputs], node.output.name, fmod=int(node.output.dtype.is_float))


def _conv(e: Emitter, node: Node) -> None:
    call = node.call
    e.image_op(
        node,
        "Conv",
        [e.name(v) for v in node.inputs],
        kernel_shape=node.input(1).shape[2:],
        strides=call.ints("strides"),
        dilations=call.ints("dilations"),
        pads=call.ints("pads"),
        group=call.int("groups"),
    )


def _conv_transpose(e: Emitter, node: Node) -> None:
    call = node.call
    e.image_op(
        node,
        "ConvTranspose",
        [e.name(v) for v in node.inputs],
        kernel_shape=node.input(1).shape[2:],
        strides=call.ints("strides"),
        dilations=call.ints("dilations"),
        pads=call.ints("pads"),
        output_padding=call.ints("output_pads"),
        group=call.int("groups"),
    )


def _reduce(op_type: str) -> Rule:
    def rule(e: Emitter, node: Node) -> None:
        e.op(
            op_type,
            [e.name(node.input(0)), e.ints(node.call.ints("axes"), "axes")],
            node.output.name,
            keepdims=int(node.call.bool("keepdims")),
            noop_with_empty_axes=1,
        )

    return rule


def _attention(e: Emitter, node: Node) -> None:
    q, k, v = (e.name(node.input(i)) for i in range(3))
    heads = e.op("Transpose", [q], perm=(0, 2, 1, 3))
    scores = e.op("MatMul", [heads, e.op("Transpose", [k], perm=(0, 2, 3, 1))])
    scores = e.op("Mul", [scores, e.float(node.call.float("scale"), "scale")])
    mask = node.optional(3)
    if mask is not None:
        scores = e.op("Add", [scores, e.name(mask)])
    weights = e.op("Softmax", [scores], axis=3)
    mean = e.op("MatMul", [weights, e.op("Transpose", [v], perm=(0, 2, 1, 3))])
    e.op("Transpose", [mean], node.output.name, perm=(0, 2, 1, 3))


def _cumsum(e: Emitter, node: Node) -> None:
    e.op("CumSum", [e.name(node.input(0)), e.tensor(np.asarray(node.call.int("axis")), "axis")], node.output.name)


FLOAT_RULES: dict[str, Rule] = {
    "conv2d": _conv,
    "conv_transpose2d": _conv_transpose,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "gemm": direct("Gemm", {**_same("alpha", "beta"), "trans_a": "transA", "trans_b": "transB"}),
    "matmul": direct("MatMul"),
    "attention": _attention,
    "add": direct("Add"),
    "sub": direct("Sub"),
    "mul": direct("Mul"),
    "div": direct("Div"),
    "pow": direct("Pow"),
    "maximum": direct("Max"),
    "minimum": direct("Min"),
    "mod": _mod,
    "equal": direct("Equal"),
    "less": direct("Less"),
    "less_equal": direct("LessOrEqual"),
    "greater": direct("Greater"),
    "greater_equal": direct("GreaterOrEqual"),
    "logical_and": direct("And"),
    "logical_or": direct("Or"),
    "logical_xor": direct("Xor"),
    "logical_not": direct("Not"),
    "where": direct("Where"),
    "relu": direct("Relu"),
    "leaky_relu": direct("LeakyRelu", _same("alpha")),
    "clip": _clip,
    "hard_sigmoid": direct("HardSigmoid", _same("alpha", "beta")),
    "hard_swish": direct("HardSwish"),
    "sigmoid": direct("Sigmoid"),
    "silu": _silu,
    "tanh": direct("Tanh"),
    "exp": direct("Exp"),
    "log": direct("Log"),
    "sqrt": direct("Sqrt"),
    "erf": direct("Erf"),
    "gelu": direct("Gelu", _same("approximate")),
    "softplus": direct("Softplus"),
    "elu": direct("Elu", _same("alpha")),
    "selu": direct("Selu", _same("alpha", "gamma")),
    "celu": direct("Celu", _same("alpha")),
    "mish": direct("Mish"),
    "softsign": direct("Softsign"),
    "abs": direct("Abs"),
    "neg": direct("Neg"),
    "floor": direct("Floor"),
    "ceil": direct("Ceil"),
    "round": direct("Round"),
    "reciprocal": direct("Reciprocal"),
    "sign": direct("Sign"),
    "sin": direct("Sin"),
    "cos": direct("Cos"),
    "thresholded_relu": direct("ThresholdedRelu", _same("alpha")),
    "prelu": direct("PRelu"),
    "softmax": direct("Softmax", _same("axis")),
    "log_softmax": direct("LogSoftmax", _same("axis")),
    "layer_norm": direct("LayerNormalization", _same("axis", "epsilon")),
    "batch_norm": direct("BatchNormalization", _same("epsilon")),
    "instance_norm": direct("InstanceNormalization", _same("epsilon")),
    "lrn": direct("LRN", _same("size", "alpha", "beta", "bias")),
    "reduce_mean": _reduce("ReduceMean"),
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_prod": _reduce("ReduceProd"),
    "reduce_l1": _reduce("ReduceL1"),
    "reduce_l2": _reduce("ReduceL2"),
    "reduce_sum_square": _reduce("ReduceSumSquare"),
    "argmax": direct("ArgMax", _same("axis", "keepdims")),
    "argmin": direct("ArgMin", _same("axis", "keepdims")),
    "cumsum": _cumsum,
}
