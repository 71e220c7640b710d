"""Which ops of a float graph will compute on integers: products with constant weights, and what lies between them."""

from __future__ import annotations

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.ops.qnormalize import LONGEST_ROW
from qcomp.ir.requantize import MOST_TAPS
from qcomp.ir.types import DType
from qcomp.passes.affine import joins_units
from qcomp.passes.precision import float_names

CLAMPS = frozenset({"relu", "clip"})

# Functions of one element: any chain of them is one table.
UNARY = CLAMPS | frozenset({
    "leaky_relu", "hard_sigmoid", "hard_swish", "sigmoid", "silu", "tanh", "exp", "log", "sqrt", "erf", "gelu",
    "softplus", "elu", "selu", "celu", "mish", "softsign", "abs", "neg", "floor", "ceil", "round", "reciprocal",
    "sign", "sin", "cos", "thresholded_relu",
})  # fmt: skip
# A binary op with a scalar constant is a function of its other operand.
SCALAR_UNARY = frozenset(["add", "sub", "mul", "div", "pow", "maximum", "minimum", "prelu"])

# Ops that copy elements: their result has the grid of their operand.
MOVEMENT = frozenset({
    "reshape", "transpose", "concat", "slice", "pad", "split", "gather", "expand", "tile", "depth_to_space",
    "space_to_depth", "identity", "max_pool", "resize",
})  # fmt: skip
PRODUCTS = frozenset({"conv2d", "conv_transpose2d", "gemm"})
# Products of computed tensors, and how many of their first operands go on grids.
JOINT_PRODUCTS = {"attention": 3, "matmul": 2}
NORMALIZING = frozenset({"softmax", "layer_norm"})
ARITHMETIC = frozenset({"add", "sub", "mul", "avg_pool"})


def activations(node: Node) -> list[Value]:
    """Operands that are computed float tensors; of an attention without its mask, which stays float."""
    operands = node.inputs[: JOINT_PRODUCTS.get(node.op.name)]
    return [v for v in operands if v is not None and not is_parameter(v) and v.dtype is DType.F32]


def is_parameter(value: Value) -> bool:
    """A constant, or the real value of one: dequantize or fake_quant of a constant."""
    if value.is_constant:
        return True
    producer = value.producer
    return producer is not None and producer.op.name in ("dequantize", "fake_quant") and is_parameter(producer.input(0))


def scalar_operand(node: Node) -> int | None:
    """Index of the constant scalar operand of a binary op with one, else None."""
    if node.op.name not in SCALAR_UNARY or len(node.inputs) != 2:
        return None
    for index in (1, 0):
        value = node.input(index)
        other = node.input(1 - index)
        if value.is_constant and value.type.elements == 1 and not other.is_constant:
            fits = node.output.shape == other.shape
            return index if fits and value.dtype is DType.F32 else None
    return None


def is_unary(node: Node) -> bool:
    return node.op.name in UNARY or scalar_operand(node) is not None


def is_clamp(node: Node) -> bool:
    return node.op.name in CLAMPS


def is_product(node: Node) -> bool:
    """A product that has an integer form: constant weights, one group where the form needs it."""
    if node.op.name not in PRODUCTS or not is_parameter(node.input(1)) or is_parameter(node.input(0)):
        return False
    bias = node.optional(2)
    if bias is not None and not (is_parameter(bias) and is_per_channel(bias)):
        return False
    if node.op.name == "conv_transpose2d":
        return node.attrs["groups"] == 1
    if node.op.name == "gemm":
        return node.call.float("alpha") > 0.0 and node.attrs["beta"] == 1.0 and not node.attrs["trans_a"]
    return True


def is_joint_product(node: Node) -> bool:
    """A product of computed float tensors, matrices at least, with sums that int32 holds."""
    count = JOINT_PRODUCTS.get(node.op.name, 0)
    if count == 0 or len(activations(node)) != count or any(v.type.rank < 2 for v in activations(node)):
        return False
    depths = [node.input(0).shape[-1]] + ([node.input(1).shape[1]] if node.op.name == "attention" else [])
    return max(depths) <= MOST_TAPS


def is_per_channel(bias: Value) -> bool:
    """Whether a product's bias is one number an output channel, or one for all: no rows or positions differ."""
    return all(dim == 1 for dim in bias.shape[:-1])


def has_integer_form(node: Node) -> bool:
    """Whether some integer op computes this node once its operands are quantized."""
    if any(v.dtype is not DType.F32 for v in node.outputs):
        return False
    name = node.op.name
    if is_product(node) or is_joint_product(node) or is_unary(node):
        return True
    if name in MOVEMENT:
        return _movement_is_exact(node)
    if name in ("add", "sub", "mul"):
        return all(v is not None and v.dtype is DType.F32 for v in node.inputs)
    if name in NORMALIZING:
        return normalizes_rows(node)
    return name == "avg_pool" and node.output.type.rank == 4


def normalizes_rows(node: Node) -> bool:
    """Whether a softmax or layer norm works along the last axis, on rows that integer sums hold, by constants."""
    x, last = node.input(0), node.output.type.rank - 1
    if last < 0 or node.call.int("axis") % (last + 1) != last or not 1 <= x.shape[last] < LONGEST_ROW:
        return False
    parameters = [v for v in node.inputs[1:] if v is not None]
    return all(v.is_constant for v in parameters)


def sums_residual(node: Node) -> bool:
    """Whether a layer norm reads a residual stream: the sum of what layers add up."""
    producer = node.input(0).producer
    return node.op.name == "layer_norm" and producer is not None and producer.op.name == "add" and (
        len(activations(producer)) == 2
    )


def _movement_is_exact(node: Node) -> bool:
    name = node.op.name
    if not activations(node):
        return False
    if name == "resize":
        return node.attrs["mode"] == "nearest"
    if name == "max_pool":
        return node.output.type.rank == 4
    if name == "gather":
        return node.input(1).is_constant
    if name == "pad":
        # Zero is on every grid; another value need not be.
        return node.attrs["mode"] != "constant" or (node.attrs["value"] == 0.0 and node.optional(1) is None)
    if name == "concat":
        return not any(is_parameter(v) for v in node.inputs if v is not None)
    return True


def integer_nodes(graph: Graph) -> set[Node]:
    """The nodes that will run on integers.

    Products always do.  Everything else that has an integer form does when a computed operand comes from the integer
    side (or the graph's input) and some result is used there; the norm of a residual stream that integer ops add to
    does wherever its result goes.  Arithmetic that gives the channels of an input one unit stays float: before it, no
    grid fits them all.  So do nodes that were chosen to.
    """
    floats = float_names(graph)
    chosen = {n for n in graph.nodes if has_integer_form(n) and n.name not in floats and not joins_units(graph, n)}
    while True:
        dropped = {n for n in chosen if not _always(n) and not (_fed(n, chosen) and _wanted(graph, n, chosen))}
        if not dropped:
            return chosen
        chosen -= dropped


def _always(node: Node) -> bool:
    return is_product(node) or is_joint_product(node)


def _fed(node: Node, chosen: set[Node]) -> bool:
    return any(v.producer is None or v.producer in chosen or _is_quantized(v) for v in activations(node))


def _is_quantized(value: Value) -> bool:
    return value.producer is not None and value.producer.op.name in ("fake_quant", "dequantize")


def _wanted(graph: Graph, node: Node, chosen: set[Node]) -> bool:
    return _used(graph, node, chosen) or (sums_residual(node) and _ends_integers(node, chosen))


def _ends_integers(norm: Node, chosen: set[Node]) -> bool:
    """Whether an integer op gives a term of the sum that the norm reads."""
    total = norm.input(0).producer
    return total in chosen and any(v.producer in chosen for v in activations(total))


def gives_integers(graph: Graph) -> bool:
    """Whether the model's outputs are to be int8: the graph's attribute `io`."""
    return graph.attrs.get("io") == "int8"


def _used(graph: Graph, node: Node, chosen: set[Node]) -> bool:
    if gives_integers(graph) and any(graph.is_output(v) for v in node.outputs):
        return True
    return any(user in chosen or user.op.name == "fake_quant" for v in node.outputs for user in graph.users(v))
