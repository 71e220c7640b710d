"""Elementwise float and integer ops outside the quantized core: one row an op."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qcomp.codegen.c.kernel import Kernel
from qcomp.codegen.c.portable.code import scalar_type
from qcomp.codegen.c.portable.elementwise import Elementwise, Walk
from qcomp.codegen.c.portable.fixed_math import helpers_for
from qcomp.codegen.c.render import float_literal
from qcomp.ir import Call, DType, Node
from qcomp.ir.ops.movement import cast_array
from qcomp.targets import Target

Expression = str | Callable[[Call], str]

_INTEGERS = (DType.I8, DType.U8, DType.I16, DType.U16, DType.I32, DType.U32, DType.I64, DType.U64)
_PLAIN = (DType.F32, *_INTEGERS)


def _number(call: Call, name: str) -> str:
    return float_literal(call.float(name))


def _hard_sigmoid(x: str, alpha: float, beta: float) -> tuple[str, str]:
    line = f"const float h0 = {x} * {float_literal(alpha)} + {float_literal(beta)}, h1 = h0 > 0.0f ? h0 : 0.0f;"
    return line, "(h1 < 1.0f ? h1 : 1.0f)"


def _elu(x: str, alpha: str) -> str:
    return f"({x} > 0.0f ? {x} : (q_exp({x}) - 1.0f) * {alpha})"


def _gelu(call: Call) -> str:
    if call.str("approximate") == "tanh":
        inner = f"(x + ((x * x) * x) * {float_literal(0.044715)}) * {float_literal(0.7978845608028654)}"
        return f"(x * 0.5f) * (1.0f + q_tanh({inner}))"
    return f"(x * 0.5f) * (1.0f + q_erf(x * {float_literal(0.7071067811865476)}))"


@dataclass(frozen=True)
class UnaryRow:
    """y = expression of the float x; `lines` come before it."""

    op: str
    expression: Expression
    lines: Callable[[Call], list[str]] | None = None
    work: float = 1.0


UNARY_ROWS = (
    UnaryRow("leaky_relu", lambda c: f"x > 0.0f ? x : x * {_number(c, 'alpha')}"),
    UnaryRow(
        "hard_sigmoid",
        "(h1 < 1.0f ? h1 : 1.0f)",
        lambda c: [_hard_sigmoid("x", c.float("alpha"), c.float("beta"))[0]],
    ),
    UnaryRow("hard_swish", "x * (h1 < 1.0f ? h1 : 1.0f)", lambda c: [_hard_sigmoid("x", 1 / 6, 0.5)[0]]),
    UnaryRow("sigmoid", "1.0f / (1.0f + q_exp(-x))", work=8),
    UnaryRow("silu", "x / (1.0f + q_exp(-x))", work=8),
    UnaryRow("tanh", "q_tanh(x)", work=12),
    UnaryRow("exp", "q_exp(x)", work=8),
    UnaryRow("log", "q_log(x)", work=8),
    UnaryRow("sqrt", "q_sqrt(x)", work=4),
    UnaryRow("erf", "q_erf(x)", work=12),
    UnaryRow("gelu", _gelu, work=12),
    UnaryRow(
        "softplus", "x == x ? (x > 0.0f ? x : 0.0f) + q_log1p_exp_term(q_exp(-q_abs(x))) : x", work=16
    ),
    UnaryRow("elu", lambda c: _elu("x", _number(c, "alpha")), work=8),
    UnaryRow("selu", lambda c: f"{_elu('x', _number(c, 'alpha'))} * {_number(c, 'gamma')}", work=8),
    UnaryRow(
        "celu", lambda c: f"(x > 0.0f ? x : (q_exp(x / {_number(c, 'alpha')}) - 1.0f) * {_number(c, 'alpha')})", work=8
    ),
    UnaryRow(
        "mish",
        "x * (n / (n + 2.0f))",
        lambda c: ["const float m = q_exp(x < 20.0f ? x : 20.0f), n = m * (m + 2.0f);"],
        work=10,
    ),
    UnaryRow("softsign", "x / (1.0f + q_abs(x))"),
    UnaryRow("floor", "q_floor(x)"),
    UnaryRow("ceil", "q_ceil(x)"),
    UnaryRow("round", "q_rint(x)"),
    UnaryRow("reciprocal", "1.0f / x"),
    UnaryRow("sin", "q_trig(x, 0)", work=12),
    UnaryRow("cos", "q_trig(x, 1)", work=12),
    UnaryRow("thresholded_relu", lambda c: f"x > {_number(c, 'alpha')} ? x : 0.0f"),
)


class FloatUnary(Elementwise):
    """One row on float32."""

    def __init__(self, row: UnaryRow) -> None:
        self.name = self.op = row.op
        self._row = row

    def supports(self, node: Node, target: Target) -> bool:
        return node.input(0).dtype is DType.F32

    def build(self, node: Node, walk: Walk) -> None:
        walk.read(0, "x")
        expression = self._row.expression
        text = expression if isinstance(expression, str) else expression(node.call)
        walk.lines.append("const float x = @x;")
        walk.lines += self._row.lines(node.call) if self._row.lines else []
        walk.lines.append(f"@y = {text};")
        walk.helpers += helpers_for(" ".join(walk.lines))
        walk.work = self._row.work


class NumberUnary(Elementwise):
    """relu, clip, abs, neg, sign, logical_not on any type."""

    def __init__(self, op: str) -> None:
        self.name = self.op = op

    def supports(self, node: Node, target: Target) -> bool:
        return node.input(0).dtype in ((DType.BOOL,) if self.op == "logical_not" else _PLAIN)

    def build(self, node: Node, walk: Walk) -> None:
        source, call = walk.read(0, "x"), node.call
        result, dtype = walk.operands.result(), source.dtype
        real = dtype is DType.F32
        wide = "int32_t" if dtype is DType.I8 else source.ctype
        walk.lines.append(f"const {wide} x = {source.load('@x')};")
        zero = "0.0f" if real else "0"
        match self.op:
            case "relu":
                text = f"x > {zero} ? x : {zero}"
            case "clip":
                text = _clip(call, dtype)
            case "abs":
                text = "q_abs(x)" if real else f"x < 0 ? ({wide})(0 - ({_unsigned(wide)})x) : x"
            case "neg":
                text = "-x" if real else f"({wide})(0 - ({_unsigned(wide)})x)"
            case "sign":
                text = "x > 0.0f ? 1.0f : (x < 0.0f ? -1.0f : (x == x ? 0.0f : x))" if real else "(x > 0) - (x < 0)"
            case _:
                text = "!x"
        walk.helpers += helpers_for(text)
        stored = f"(int32_t)({text}) + {result.shift}" if result.shift else text
        walk.lines.append(f"@y = ({result.ctype})({stored});")


def _unsigned(kind: str) -> str:
    return kind if kind.startswith("u") else f"u{kind}"


def _clip(call: Call, dtype: DType) -> str:
    lo, hi = call.float("lo"), call.float("hi")
    if dtype is DType.F32:
        low, high = float_literal(lo), float_literal(hi)
        return f"(x > {low} ? x : {low}) < {high} ? (x > {low} ? x : {low}) : {high}"
    least, most = dtype.limits
    low, high = (_integer(max(least, min(most, b)), dtype) for b in (_inner(lo, math.ceil), _inner(hi, math.floor)))
    # numpy.clip: the upper bound wins when the bounds cross
    return f"({low} > x ? {low} : x) < {high} ? ({low} > x ? {low} : x) : {high}"


def _inner(bound: float, inward: Callable[[float], int]) -> int:
    return inward(bound) if math.isfinite(bound) else (1 << 70 if bound > 0 else -(1 << 70))


def _integer(value: int, dtype: DType) -> str:
    """C literal of an integer of that type."""
    if dtype is DType.I64:
        return f"(-{-value - 1}LL - 1)" if value < 0 else f"{value}LL"
    if dtype is DType.I32 and value < 0:
        return f"(-{-value - 1} - 1)"
    return f"{value}u" if dtype is DType.U32 else f"{value}ull" if dtype is DType.U64 else str(value)


@dataclass(frozen=True)
class BinaryRow:
    """result = expression of a and b; `integer` is that for integers (T: their type, U: unsigned)."""

    op: str
    real: str | None
    integer: str | None
    work: float = 1.0
    boolean: bool = False


BINARY_ROWS = (
    BinaryRow("add", "a + b", "U(a) + U(b)"),
    BinaryRow("sub", "a - b", "U(a) - U(b)"),
    BinaryRow("mul", "a * b", "U(a) * U(b)"),
    BinaryRow("div", "a / b", "b == 0 ? 0 : b == (T)-1 && b < 0 ? (T)(0 - U(a)) : (T)(a / b)"),
    BinaryRow("pow", "q_pow(a, b)", None, work=16),
    BinaryRow("maximum", "a > b ? a : b", "a > b ? a : b"),
    BinaryRow("minimum", "a < b ? a : b", "a < b ? a : b"),
    BinaryRow(
        "mod", None, "b == 0 || (b == (T)-1 && b < 0) ? 0 : (a % b != 0 && ((a < 0) != (b < 0)) ? a % b + b : a % b)"
    ),
    BinaryRow("equal", "a == b", "a == b", boolean=True),
    BinaryRow("less", "a < b", "a < b"),
    BinaryRow("less_equal", "a <= b", "a <= b"),
    BinaryRow("greater", "a > b", "a > b"),
    BinaryRow("greater_equal", "a >= b", "a >= b"),
    BinaryRow("logical_and", None, "a && b", boolean=True),
    BinaryRow("logical_or", None, "a || b", boolean=True),
    BinaryRow("logical_xor", None, "!a != !b", boolean=True),
)


class Binary(Elementwise):
    """One row, on float32 or integers, numpy broadcasting."""

    def __init__(self, row: BinaryRow) -> None:
        self.name = self.op = row.op
        self._row = row

    def supports(self, node: Node, target: Target) -> bool:
        dtype = node.input(0).dtype
        if dtype is DType.BOOL:
            return self._row.boolean
        text = self._row.real if dtype is DType.F32 else self._row.integer
        return dtype in _PLAIN and text is not None and not self.op.startswith("logical")

    def build(self, node: Node, walk: Walk) -> None:
        left, right = walk.read(0, "a"), walk.read(1, "b")
        result = walk.operands.result()
        text = self._row.real if left.dtype is DType.F32 else self._row.integer
        assert text is not None
        # int8 arithmetic happens in int32, whose low byte is the wrapped result
        kind = "int32_t" if left.dtype is DType.I8 else scalar_type(left.dtype, node)
        unsigned = _unsigned({"uint8_t": "uint32_t", "int16_t": "int32_t", "uint16_t": "uint32_t"}.get(kind, kind))
        text = text.replace("(T)", f"({kind})").replace("U(", f"({unsigned})(")
        walk.lines.append(f"const {kind} a = {left.load('@a')}, b = {right.load('@b')};")
        stored = f"(int8_t)({text}) + {result.shift}" if result.dtype is DType.I8 else text
        walk.lines.append(f"@y = ({result.ctype})({stored});")
        walk.helpers += helpers_for(text)
        walk.work = self._row.work


class Where(Elementwise):
    name, op = "where", "where"

    def build(self, node: Node, walk: Walk) -> None:
        walk.read(0, "c")
        left, right = walk.read(1, "a"), walk.read(2, "b")
        result = walk.operands.result()
        sides = [s.load(f"@{n}") if result.dtype is DType.I8 else f"@{n}" for s, n in ((left, "a"), (right, "b"))]
        shift = f" + {result.shift}" if result.shift else ""
        walk.lines.append(f"@y = ({result.ctype})((@c ? {sides[0]} : {sides[1]}){shift});")


class Prelu(Elementwise):
    name, op = "prelu", "prelu"

    def supports(self, node: Node, target: Target) -> bool:
        return node.input(0).dtype is DType.F32

    def build(self, node: Node, walk: Walk) -> None:
        walk.read(0, "x")
        walk.read(1, "s")
        walk.lines += ["const float x = @x;", "@y = x > 0.0f ? x : x * @s;"]


class Cast(Elementwise):
    """Between float32, integers and bool."""

    name, op = "cast", "cast"

    def supports(self, node: Node, target: Target) -> bool:
        return {node.input(0).dtype, node.output.dtype} <= {*_PLAIN, DType.BOOL}

    def build(self, node: Node, walk: Walk) -> None:
        source, result = walk.read(0, "x"), walk.operands.result()
        walk.lines.append(f"const {'int32_t' if source.dtype is DType.I8 else source.ctype} x = {source.load('@x')};")
        if result.dtype is DType.BOOL:
            text = "x != 0"
        elif source.dtype is DType.F32 and result.dtype is not DType.F32:
            text = _truncation(result.dtype)
        elif result.dtype is DType.I8:
            text = "(int8_t)x"
        else:
            text = "x"
        shift = f" + {result.shift}" if result.shift else ""
        walk.lines.append(f"@y = ({result.ctype})(({text}){shift});")


def _truncation(dtype: DType) -> str:
    """Float to integer: truncated and clamped, NaN to 0; the casts in between never leave the type's range."""
    least, most = dtype.limits
    low, high = float_literal(np.float32(least)), float_literal(np.float32(most))
    kind = {DType.I64: "int64_t", DType.U64: "uint64_t", DType.U32: "uint32_t"}.get(dtype, "int32_t")
    top, bottom = _integer(most, dtype), _integer(least, dtype)
    return f"x >= {high} ? ({kind}){top} : x <= {low} ? ({kind}){bottom} : x == x ? ({kind})x : 0"


class BatchNorm(Elementwise):
    """(x − mean) · factor + bias, factor computed when compiling in the interpreter's float32 steps."""

    name, op = "batch_norm", "batch_norm"

    def supports(self, node: Node, target: Target) -> bool:
        return all(node.input(i).is_constant for i in range(1, 5))

    def build(self, node: Node, walk: Walk) -> None:
        scale, bias, mean, var = (node.input(i).array for i in range(1, 5))
        with np.errstate(all="ignore"):
            factor = scale / np.sqrt(var + np.float32(node.call.float("epsilon")))
        walk.read(0, "x")
        for name, array in (("f", factor.astype(np.float32)), ("b", bias), ("m", mean)):
            walk.along(name, array, 1)
        walk.lines.append("@y = (@x - @m) * @f + @b;")


class OneHot(Elementwise):
    """Walks the result; the class number comes from a constant along the new axis."""

    name, op = "one_hot", "one_hot"

    def in_place(self, node: Node) -> tuple[int, ...]:
        return ()

    def supports(self, node: Node, target: Target) -> bool:
        return node.input(0).dtype in _INTEGERS and node.output.dtype in (*_PLAIN, DType.BOOL)

    def build(self, node: Node, walk: Walk) -> None:
        call = node.call
        axis, depth, dtype = call.int("axis"), call.int("depth"), node.output.dtype
        source, result = walk.operands.source(0), walk.operands.result()
        walk.walked.append(("i", source, (*source.strides[:axis], 0, *source.strides[axis:])))
        walk.along("k", np.arange(depth, dtype=np.int32), axis)
        ends = cast_array(np.asarray([call.float("on"), call.float("off")]), dtype)
        texts = [float_literal(e) if dtype is DType.F32 else _integer(int(e) + result.shift, dtype) for e in ends]
        walk.lines.append(f"const int64_t i = {source.load('@i')};")
        walk.lines.append(f"@y = ({result.ctype})((i < 0 ? i + {depth} : i) == @k ? {texts[0]} : {texts[1]});")


FLOATS: tuple[Kernel, ...] = (
    *(FloatUnary(row) for row in UNARY_ROWS),
    *(NumberUnary(op) for op in ("relu", "clip", "abs", "neg", "sign", "logical_not")),
    *(Binary(row) for row in BINARY_ROWS),
    Where(),
    Prelu(),
    Cast(),
    BatchNorm(),
    OneHot(),
)
