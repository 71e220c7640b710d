"""Random calls of every op: a graph of one node, and arrays for its inputs.  Shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from qcomp.ir import DType, Graph, Quantization, Value, verify
from qcomp.ir.ops import binary, reduce, unary
from qcomp.ir.ops.qnormalize import exponentials


@dataclass
class Case:
    graph: Graph
    arrays: dict[str, np.ndarray]


class Dice:
    """Hypothesis draws for sizes and choices, and numpy for the numbers in tensors."""

    def __init__(self, data: st.DataObject) -> None:
        self._draw = data.draw
        self.rng = np.random.default_rng(self._draw(st.integers(0, 2**16)))

    def int(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def bool(self) -> bool:
        return self._draw(st.booleans())

    def pick(self, options: Sequence):
        return self._draw(st.sampled_from(list(options)))

    def shape(self, low: int = 0, high: int = 4, size: int = 4) -> tuple[int, ...]:
        return tuple(self.int(1, size) for _ in range(self.int(low, high)))

    def floats(self, shape: Sequence[int], scale: float = 3.0) -> np.ndarray:
        values = self.rng.normal(size=tuple(shape)) * scale
        values = np.where(self.rng.random(tuple(shape)) < 0.1, np.rint(values * 2) / 2, values)
        return np.asarray(values, np.float32)

    def ints(self, shape: Sequence[int], low: int, high: int, dtype: type = np.int64) -> np.ndarray:
        return np.asarray(self.rng.integers(low, high + 1, tuple(shape))).astype(dtype)

    def int8(self, shape: Sequence[int]) -> np.ndarray:
        return self.ints(shape, -128, 127, np.int8)

    def any_type(self, shape: Sequence[int]) -> np.ndarray:
        dtype = self.pick([np.float32, np.float32, np.int8, np.int64, np.bool_])
        if dtype is np.float32:
            return self.floats(shape)
        return self.ints(shape, 0, 1, np.bool_) if dtype is np.bool_ else self.ints(shape, -100, 100, dtype)


def case(
    op: str,
    operands: Sequence[np.ndarray | None],
    attrs: dict | None = None,
    *,
    constants: Sequence[int] = (),
    quants: dict[int, Quantization] | None = None,
    result: Quantization | None = None,
) -> Case:
    """One node; operands at the positions in `constants` are constants, the others graph inputs."""
    graph, arrays, values = Graph("case"), {}, []
    for index, array in enumerate(operands):
        quant = (quants or {}).get(index)
        value: Value | None = None
        if array is not None and index in constants:
            value = graph.constant(array, f"c{index}", quant)
        elif array is not None:
            value = graph.input(f"x{index}", _type(array, quant))
            arrays[value.name] = array
        values.append(value)
    node = graph.add(op, values, attrs or {}, names=["y"], quants=[result] if result else [])
    graph.outputs = list(node.outputs)
    verify(graph)
    return Case(graph, arrays)


def _type(array: np.ndarray, quant: Quantization | None):
    from qcomp.ir import TensorType

    return TensorType.of(array, quant)


def _image(d: Dice, layout: str, channels: int, low: int = 1, high: int = 7) -> tuple[int, ...]:
    n, h, w = d.int(1, 2), d.int(low, high), d.int(low, high)
    return (n, h, w, channels) if layout == "NHWC" else (n, channels, h, w)


def _layout(d: Dice) -> str:
    return d.pick(["NCHW", "NHWC"])


# ---- products ----------------------------------------------------------------------------------------------------


def conv2d(d: Dice) -> Case:
    layout, groups = _layout(d), d.int(1, 3)
    inner, outer = d.int(1, 3), d.int(1, 3)
    kernel, dilations = (d.int(1, 3), d.int(1, 3)), (d.int(1, 2), d.int(1, 2))
    pads = tuple(d.int(0, 2) for _ in range(4))
    x = d.floats(_image(d, layout, groups * inner, 5, 8))
    w = d.floats((groups * outer, inner, *kernel), 1.0)
    b = d.floats((groups * outer,)) if d.bool() else None
    attrs = {"strides": (d.int(1, 2), d.int(1, 3)), "dilations": dilations, "pads": pads, "groups": groups}
    return case("conv2d", [x, w, b], {**attrs, "layout": layout}, constants=(1, 2) if d.bool() else ())


def conv_transpose2d(d: Dice) -> Case:
    layout, groups = _layout(d), d.int(1, 2)
    inner, outer = d.int(1, 3), d.int(1, 3)
    strides = (d.int(1, 3), d.int(1, 3))
    x = d.floats(_image(d, layout, groups * inner, 3, 5))
    w = d.floats((groups * inner, outer, d.int(2, 3), d.int(2, 3)), 1.0)
    b = d.floats((groups * outer,)) if d.bool() else None
    attrs = {
        "strides": strides,
        "dilations": (d.int(1, 2), d.int(1, 2)),
        "pads": tuple(d.int(0, 1) for _ in range(4)),
        "output_pads": (d.int(0, strides[0] - 1), d.int(0, strides[1] - 1)),
        "groups": groups,
        "layout": layout,
    }
    return case("conv_transpose2d", [x, w, b], attrs, constants=(1, 2) if d.bool() else ())


def gemm(d: Dice) -> Case:
    m, k, n, trans_a, trans_b = d.int(1, 5), d.int(1, 9), d.int(1, 5), d.bool(), d.bool()
    a, b = d.floats((k, m) if trans_a else (m, k)), d.floats((n, k) if trans_b else (k, n))
    c = d.pick([None, d.floats((n,)), d.floats((m, n)), d.floats((m, 1)), d.floats(())])
    attrs = {"alpha": d.pick([1.0, -0.5]), "beta": d.pick([1.0, 2.0]), "trans_a": trans_a, "trans_b": trans_b}
    return case("gemm", [a, b, c], attrs, constants=(1, 2) if d.bool() else ())


def matmul(d: Dice) -> Case:
    m, k, n = d.int(1, 4), d.int(1, 20), d.int(1, 4)
    batch = d.shape(0, 2, 3)
    a = d.pick([(k,), (m, k), (*batch, m, k)])
    b = d.pick([(k,), (k, n), (*batch, k, n), (*(1 for _ in batch), k, n)])
    return case("matmul", [d.floats(a), d.floats(b)], constants=(1,) if d.bool() else ())


def max_pool(d: Dice) -> Case:
    layout = _layout(d)
    x = _image(d, layout, d.int(1, 3), 4, 7)
    kernel = (d.int(1, 3), d.int(1, 3))
    pads = tuple(d.int(0, kernel[i % 2] - 1) for i in range(4))
    attrs = {"kernel": kernel, "strides": (d.int(1, 3), d.int(1, 2)), "pads": pads, "layout": layout}
    return case("max_pool", [d.floats(x) if d.bool() else d.int8(x)], attrs)


def avg_pool(d: Dice) -> Case:
    layout = _layout(d)
    kernel = (d.int(1, 3), d.int(1, 3))
    attrs = {
        "kernel": kernel,
        "strides": (d.int(1, 3), d.int(1, 2)),
        "pads": tuple(d.int(0, kernel[i % 2] - 1) for i in range(4)),
        "count_include_pad": d.bool(),
        "layout": layout,
    }
    return case("avg_pool", [d.floats(_image(d, layout, d.int(1, 3), 4, 7))], attrs)


# ---- elementwise -------------------------------------------------------------------------------------------------

_POSITIVE = ("log", "sqrt")
_UNARY_ATTRS: dict[str, Callable[[Dice], dict]] = {
    "leaky_relu": lambda d: {"alpha": d.pick([0.01, 0.3, -0.5, 1.5])},
    "clip": lambda d: {"lo": d.pick([-np.inf, -2.0, 0.0]), "hi": d.pick([np.inf, 1.0, 6.0])},
    "hard_sigmoid": lambda d: {"alpha": d.pick([0.2, 1 / 6, -0.2]), "beta": 0.5},
    "gelu": lambda d: {"approximate": d.pick(["none", "tanh"])},
    "elu": lambda d: {"alpha": d.pick([1.0, 0.5])},
    "celu": lambda d: {"alpha": d.pick([1.0, 2.0])},
    "thresholded_relu": lambda d: {"alpha": d.pick([1.0, 0.0, -1.0])},
}


def _unary(row: unary.Row) -> Callable[[Dice], Case]:
    def build(d: Dice) -> Case:
        attrs, shape = _UNARY_ATTRS.get(row.name, lambda d: {})(d), d.shape()
        if row.dtypes == "bool":
            return case(row.name, [d.ints(shape, 0, 1, np.bool_)], attrs)
        if row.dtypes == "number" and d.bool():
            return case(row.name, [d.ints(shape, -50, 50, np.int32 if row.name == "relu" else np.int64)], attrs)
        x = d.floats(shape, d.pick([0.1, 3.0, 10.0]))
        return case(row.name, [np.abs(x) + np.float32(1e-3) if row.name in _POSITIVE else x], attrs)

    return build


def _broadcast_pair(d: Dice) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = d.shape()
    other = tuple(1 if d.int(0, 3) == 0 else s for s in shape)[d.int(0, len(shape)) :]
    return (shape, other) if d.bool() else (other, shape)


def _binary(row: binary.Row) -> Callable[[Dice], Case]:
    def build(d: Dice) -> Case:
        a, b = _broadcast_pair(d)
        constants = (1,) if d.bool() else ()
        if row.takes == "bool":
            return case(row.name, [d.ints(a, 0, 1, np.bool_), d.ints(b, 0, 1, np.bool_)], constants=constants)
        if d.int(0, 2) == 0:
            left, right = d.ints(a, -20, 20), d.ints(b, -20, 20)
            if row.name in ("div", "mod"):
                right = np.where(right == 0, 3, right)
            if row.name == "pow":
                right = np.abs(right) % 5
            return case(row.name, [left, right], constants=constants)
        left, right = d.floats(a), d.floats(b)
        if row.name == "pow":
            if d.bool():
                left = np.abs(left) + np.float32(0.01)
            else:
                right = np.full(b, d.pick([2.0, 3.0, -1.0, 0.0, 2.0]), np.float32)
        if row.name in ("div", "mod"):
            right = np.where(np.abs(right) < 0.1, np.float32(0.5), right)
        return case(row.name, [left, right], constants=constants)

    return build


def where(d: Dice) -> Case:
    a, b = _broadcast_pair(d)
    return case("where", [d.ints(d.pick([a, b]), 0, 1, np.bool_), d.floats(a), d.floats(b)])


def prelu(d: Dice) -> Case:
    shape = d.shape(1, 4)
    slope = tuple(1 if d.bool() else s for s in shape)[d.int(0, len(shape) - 1) :]
    return case("prelu", [d.floats(shape), d.floats(slope, 0.5)], constants=(1,) if d.bool() else ())


# ---- reductions and normalizations -------------------------------------------------------------------------------


def _reduce(row: reduce.Row) -> Callable[[Dice], Case]:
    def build(d: Dice) -> Case:
        shape = d.shape(1, 4, 6)
        axes = tuple(a for a in range(len(shape)) if d.bool())
        scale = 1.0 if row.name == "reduce_prod" else 3.0
        x = d.floats(shape, scale)
        if d.int(0, 3) == 0 and row.name in ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"):
            x = d.ints(shape, -3, 3)
        return case(row.name, [x], {"axes": axes, "keepdims": d.bool()})

    return build


def _arg(name: str) -> Callable[[Dice], Case]:
    def build(d: Dice) -> Case:
        shape = d.shape(1, 4)
        x = np.rint(d.floats(shape))
        return case(name, [x], {"axis": d.int(0, len(shape) - 1), "keepdims": d.bool()})

    return build


def _along_axis(name: str) -> Callable[[Dice], Case]:
    def build(d: Dice) -> Case:
        shape = d.shape(1, 4, 20 if name != "cumsum" else 5)
        return case(name, [d.floats(shape)], {"axis": d.int(0, len(shape) - 1)})

    return build


def layer_norm(d: Dice) -> Case:
    shape = (*d.shape(0, 2), d.int(2, 30))
    axis = d.int(0, len(shape) - 1)
    scale, bias = d.floats(shape[axis:]), d.floats(shape[axis:]) if d.bool() else None
    attrs = {"axis": axis, "epsilon": d.pick([1e-5, 1e-3])}
    return case("layer_norm", [d.floats(shape), scale, bias], attrs, constants=(1, 2))


def batch_norm(d: Dice) -> Case:
    c = d.int(1, 4)
    x = d.floats((d.int(1, 2), c, *d.shape(0, 2)))
    sides = [d.floats((c,)), d.floats((c,)), d.floats((c,)), np.abs(d.floats((c,))) + np.float32(0.1)]
    return case("batch_norm", [x, *sides], {"epsilon": 1e-3}, constants=(1, 2, 3, 4))


def instance_norm(d: Dice) -> Case:
    c = d.int(1, 4)
    x = d.floats((d.int(1, 2), c, d.int(2, 4), d.int(2, 4)))
    return case("instance_norm", [x, d.floats((c,)), d.floats((c,))], {"epsilon": 1e-3}, constants=(1, 2))


def lrn(d: Dice) -> Case:
    x = d.floats((1, d.int(1, 6), d.int(1, 3), 2))
    return case("lrn", [x], {"size": d.pick([1, 3, 5]), "alpha": 0.1, "beta": d.pick([0.75, 0.5]), "bias": 1.5})


# ---- movement ----------------------------------------------------------------------------------------------------


def identity(d: Dice) -> Case:
    return case("identity", [d.any_type(d.shape())])


def reshape(d: Dice) -> Case:
    shape = d.shape()
    target = list(shape)
    while len(target) > 1 and d.bool():
        i = d.int(0, len(target) - 2)
        target[i : i + 2] = [target[i] * target[i + 1]]
    if d.bool():
        target.insert(d.int(0, len(target)), 1)
    return case("reshape", [d.any_type(shape)], {"shape": tuple(target)})


def transpose(d: Dice) -> Case:
    shape = d.shape()
    perm = tuple(int(a) for a in d.rng.permutation(len(shape)))
    return case("transpose", [d.any_type(shape)], {"perm": perm})


def concat(d: Dice) -> Case:
    shape, dtype = d.shape(1, 4), d.pick([np.float32, np.int8])
    axis = d.int(0, len(shape) - 1)
    parts = []
    for _ in range(d.int(1, 3)):
        part = (*shape[:axis], d.int(1, 3), *shape[axis + 1 :])
        parts.append(d.floats(part) if dtype is np.float32 else d.int8(part))
    return case("concat", parts, {"axis": axis})


def slice_(d: Dice) -> Case:
    shape = d.shape(1, 4, 6)
    starts, ends, steps = [], [], []
    for size in shape:
        step, start, count = d.pick([1, 2, -1, -2]), d.int(0, size - 1), d.int(1, 3)
        room = (size - 1 - start) // step + 1 if step > 0 else start // -step + 1
        count = min(count, room)
        end = start + count * step
        starts.append(start)
        ends.append(min(end, size) if step > 0 else max(end, -1))
        steps.append(step)
    attrs = {"starts": tuple(starts), "ends": tuple(ends), "steps": tuple(steps)}
    return case("slice", [d.any_type(shape)], attrs)


def pad(d: Dice) -> Case:
    shape = d.shape(1, 4)
    mode = d.pick(["constant", "reflect", "edge", "wrap"])
    most = [{"constant": 3, "edge": 3, "reflect": s - 1, "wrap": s}[mode] for s in shape]
    pads = tuple(d.int(0, most[i % len(shape)]) for i in range(2 * len(shape)))
    if mode == "constant" and d.bool():
        pads = (-d.int(0, shape[0] - 1), *pads[1:])
    x = d.floats(shape) if d.bool() else d.int8(shape)
    return case("pad", [x], {"pads": pads, "mode": mode, "value": d.pick([0.0, -2.0, 3.0])})


def split(d: Dice) -> Case:
    shape = d.shape(1, 4)
    axis, sizes = d.int(0, len(shape) - 1), tuple(d.int(1, 3) for _ in range(d.int(1, 3)))
    whole = (*shape[:axis], sum(sizes), *shape[axis + 1 :])
    return case("split", [d.floats(whole) if d.bool() else d.int8(whole)], {"axis": axis, "sizes": sizes})


def expand(d: Dice) -> Case:
    shape = d.shape()
    old = tuple(1 if d.bool() else s for s in shape)[d.int(0, len(shape)) :]
    return case("expand", [d.floats(old) if d.bool() else d.int8(old)], {"shape": shape})


def tile(d: Dice) -> Case:
    shape = d.shape(1, 4, 3)
    return case("tile", [d.any_type(shape)], {"repeats": tuple(d.int(1, 3) for _ in shape)})


def depth_to_space(d: Dice) -> Case:
    layout, block = _layout(d), d.int(1, 3)
    shape = _image(d, layout, d.int(1, 2) * block * block, 1, 3)
    attrs = {"block": block, "mode": d.pick(["DCR", "CRD"]), "layout": layout}
    return case("depth_to_space", [d.floats(shape) if d.bool() else d.int8(shape)], attrs)


def space_to_depth(d: Dice) -> Case:
    layout, block, n, c, h, w = _layout(d), d.int(1, 3), d.int(1, 2), d.int(1, 3), d.int(1, 3), d.int(1, 3)
    shape = (n, h * block, w * block, c) if layout == "NHWC" else (n, c, h * block, w * block)
    attrs = {"block": block, "layout": layout}
    return case("space_to_depth", [d.floats(shape) if d.bool() else d.int8(shape)], attrs)


def cast(d: Dice) -> Case:
    x = d.pick([d.floats(d.shape(), 50.0), d.ints(d.shape(), -100, 100), d.ints(d.shape(), 0, 1, np.bool_)])
    return case("cast", [x], {"dtype": d.pick([DType.F32, DType.I8, DType.I32, DType.I64, DType.BOOL, DType.F64])})


def gather(d: Dice) -> Case:
    shape = d.shape(1, 3)
    axis = d.int(0, len(shape) - 1)
    indices = d.ints(d.shape(0, 2), -shape[axis], shape[axis] - 1, d.pick([np.int64, np.int32]))
    return case("gather", [d.any_type(shape), indices], {"axis": axis}, constants=(1,) if d.bool() else ())


def one_hot(d: Dice) -> Case:
    shape, depth = d.shape(0, 2), d.int(1, 5)
    attrs = {"depth": depth, "on": d.pick([1.0, 5.0]), "off": d.pick([0.0, -1.0]), "axis": d.int(0, len(shape))}
    return case("one_hot", [d.ints(shape, -depth, depth - 1)], attrs)


def resize(d: Dice) -> Case:
    mode = d.pick(["nearest", "linear", "cubic"])
    channels_last = d.bool()
    h, w, out_h, out_w = d.int(1, 5), d.int(1, 5), d.int(1, 9), d.int(1, 9)
    if mode == "cubic":
        h, w = h + 3, w + 3
        if channels_last:  # onnxruntime moves the transposes away and then cannot shrink with cubics
            out_h, out_w = h + out_h, w + out_w
    shape, sizes = ((1, h, w, 2), (1, out_h, out_w, 2)) if channels_last else ((1, 2, h, w), (1, 2, out_h, out_w))
    scales = tuple(float(np.float32(o / i)) for i, o in zip(shape, sizes, strict=True))
    attrs = {
        "sizes": sizes,
        "scales": scales,
        "mode": mode,
        "coordinates": d.pick(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]),
        "rounding": d.pick(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    }
    if mode == "nearest":  # ties in float32 fall where they fall: keep to positions that are exact
        attrs["coordinates"] = d.pick(["half_pixel", "asymmetric"])
        factors = d.pick([1, 2, 4]), d.pick([1, 2, 4])
        factors = (1, *factors, 1) if channels_last else (1, 1, *factors)
        sizes = tuple(s * f for s, f in zip(shape, factors, strict=True))
        attrs["sizes"], attrs["scales"] = sizes, tuple(float(o // i) for i, o in zip(shape, sizes, strict=True))
    return case("resize", [d.int8(shape) if mode == "nearest" and d.bool() else d.floats(shape)], attrs)


# ---- quantization and integer ops --------------------------------------------------------------------------------


def _scale(d: Dice, low: float = 0.01, high: float = 0.1) -> float:
    return float(np.float32(d.rng.uniform(low, high)))


def _clamp(d: Dice, wide: bool = False) -> dict:
    if wide:
        return {"zp": d.int(-200, 200), "lo": d.pick([-32768, -3000]), "hi": d.pick([32767, 4000]), "dtype": DType.I16}
    return {"zp": d.int(-20, 20), "lo": d.pick([-128, -30]), "hi": d.pick([127, 40])}


def _table(d: Dice) -> np.ndarray | None:
    """None, or a table that moves neighbours at most one step apart, so one step in stays one step out."""
    return d.pick([None, np.clip(np.arange(-128, 128), -50, 60).astype(np.int8)])


def _product_sides(d: Dice, w: np.ndarray, depth: int, finer: float = 1.0) -> list[np.ndarray | None]:
    out = w.shape[0]
    bias = d.ints((out,), -3000, 3000, np.int32)
    mult = (d.rng.uniform(0.2, 1.0, out) / (60 * np.sqrt(depth))).astype(np.float32)
    return [w, bias, (mult * finer).astype(np.float32)]


def _activation(d: Dice, shape: Sequence[int]) -> np.ndarray:
    """int8, or int16 whose steps are so much finer that results keep their size."""
    return d.int8(shape) if d.int(0, 2) else d.ints(shape, -32768, 32767, np.int16)


def _finer(x: np.ndarray) -> float:
    """What a step of x is of one of int8."""
    return 1.0 if x.dtype == np.int8 else 2.0**-8


def _ending(d: Dice) -> dict:
    """A result in float32, int8 or int16."""
    return d.pick([{"dtype": DType.F32}, _clamp(d), _clamp(d, wide=True)])


def _product_attrs(d: Dice) -> tuple[dict, np.ndarray | None]:
    if d.int(0, 3) == 0:
        return {**_clamp(d, wide=True), "x_zp": d.int(-20, 20)}, None
    if d.int(0, 3) == 0:
        return {"dtype": DType.F32, "x_zp": d.int(-20, 20)}, None
    return {**_clamp(d), "x_zp": d.int(-20, 20)}, _table(d)


def _quant_choice(d: Dice, attrs: dict) -> dict:
    """Types that carry the scales the graph would have, or none."""
    if attrs.get("dtype") is DType.F32 or d.bool():
        return {}
    return {
        "quants": {0: Quantization.per_tensor(_scale(d), attrs["x_zp"])},
        "result": Quantization.per_tensor(_scale(d), attrs["zp"]),
    }


def qconv2d(d: Dice) -> Case:
    groups = d.int(1, 3)
    inner, outer, kernel = d.int(1, 3), d.int(1, 3), (d.int(1, 3), d.int(1, 3))
    x = _activation(d, _image(d, "NHWC", groups * inner, 5, 7))
    w = d.ints((groups * outer, *kernel, inner), -127, 127, np.int8)
    attrs, table = _product_attrs(d)
    extra = _quant_choice(d, attrs)
    attrs |= {
        "strides": (d.int(1, 2), d.int(1, 2)),
        "dilations": (d.int(1, 2), d.int(1, 2)),
        "pads": tuple(d.int(0, 2) for _ in range(4)),
        "groups": groups,
    }
    sides = _product_sides(d, w, inner * kernel[0] * kernel[1], _finer(x))
    residual = None
    if "dtype" not in attrs and d.int(0, 2) == 0:
        rows, cols = (
            (x.shape[1 + a] + attrs["pads"][a] + attrs["pads"][a + 2] - (kernel[a] - 1) * attrs["dilations"][a] - 1)
            // attrs["strides"][a]
            + 1
            for a in range(2)
        )
        residual = d.int8((x.shape[0], rows, cols, groups * outer))
        attrs |= {"r_zp": d.int(-20, 20), "r_mult": float(np.float32(d.rng.uniform(-1.5, 1.5)))}
    return case("qconv2d", [x, *sides, table, residual], attrs, constants=(1, 2, 3, 4), **extra)


def qconv_transpose2d(d: Dice) -> Case:
    c, out, strides = d.int(1, 3), d.int(1, 3), (d.int(1, 2), d.int(1, 2))
    x, w = _activation(d, _image(d, "NHWC", c, 3, 5)), d.ints((out, d.int(2, 3), d.int(2, 3), c), -127, 127, np.int8)
    attrs, table = _product_attrs(d)
    extra = _quant_choice(d, attrs)
    attrs |= {
        "strides": strides,
        "pads": tuple(d.int(0, 1) for _ in range(4)),
        "output_pads": (d.int(0, strides[0] - 1), d.int(0, strides[1] - 1)),
    }
    return case(
        "qconv_transpose2d", [x, *_product_sides(d, w, 4 * c, _finer(x)), table], attrs, constants=(1, 2, 3, 4), **extra
    )


def qgemm(d: Dice) -> Case:
    k = d.int(1, 12)
    x, w = _activation(d, (*d.shape(0, 2), k)), d.ints((d.int(1, 5), k), -127, 127, np.int8)
    attrs, table = _product_attrs(d)
    extra = _quant_choice(d, attrs)
    return case("qgemm", [x, *_product_sides(d, w, k, _finer(x)), table], attrs, constants=(1, 2, 3, 4), **extra)


def qadd(d: Dice) -> Case:
    a, b = (_activation(d, shape) for shape in _broadcast_pair(d))
    wide = d.bool()
    attrs: dict = {"a_zp": d.int(-9, 9), "b_zp": d.int(-9, 9), **_clamp(d, wide)}
    for name, x in (("a", a), ("b", b)):
        attrs[f"{name}_mult"] = _scale(d, 0.2, 1.5) * (_finer(x) * 256.0 if wide else _finer(x))
    return case("qadd", [a, b, None if wide else _table(d)], attrs, constants=(2,))


def rescale(d: Dice) -> Case:
    x, wide = _activation(d, d.shape(0, 3)), d.bool()
    factor = _scale(d, 0.2, 1.5) * (_finer(x) * 256.0 if wide else _finer(x))
    return case("rescale", [x], {"x_zp": d.int(-9, 9), "mult": factor * d.pick([1.0, -1.0]), **_clamp(d, wide)})


def qmul(d: Dice) -> Case:
    a, b = _broadcast_pair(d)
    attrs = {"a_zp": d.int(-9, 9), "b_zp": d.int(-9, 9), "mult": _scale(d, 0.005, 0.02), **_clamp(d)}
    return case("qmul", [d.int8(a), d.int8(b), _table(d)], attrs, constants=(2,))


def _attention_shapes(d: Dice) -> list[tuple[int, ...]]:
    batch, heads, rows, keys, depth, width = (d.int(1, high) for high in (2, 3, 5, 9, 6, 5))
    mask = tuple(d.pick([1, size]) for size in (batch, heads, rows, keys))
    return [(batch, rows, heads, depth), (batch, keys, heads, depth), (batch, keys, heads, width), mask]


def attention(d: Dice) -> Case:
    *shapes, mask = _attention_shapes(d)
    operands = [d.floats(shape) for shape in shapes]
    hidden = d.pick([0.0, -10000.0]) * (d.rng.random(mask) < 0.4) + d.floats(mask, 0.5)
    operands = [*operands, hidden.astype(np.float32) if d.bool() else None]
    return case("attention", operands, {"scale": _scale(d, 0.1, 1.2)})


def qattention(d: Dice) -> Case:
    *shapes, mask = _attention_shapes(d)
    attrs = {f"{n}_zp": d.int(-9, 9) for n in "qkv"} | {"scale": _scale(d, 1e-5, 1e-3), "mult": _scale(d, 0.3, 1.2)}
    extra = _ending(d)
    hidden = d.pick([0.0, -10000.0]) * (d.rng.random(mask) < 0.4) + d.floats(mask, 0.5)
    operands = [*(d.int8(shape) for shape in shapes), hidden.astype(np.float32) if d.bool() else None]
    return case("qattention", operands, attrs | extra)


def qmatmul(d: Dice) -> Case:
    rows, depth, columns = d.int(1, 5), d.int(1, 9), d.int(1, 5)
    left, right = d.pick([((), ()), ((2,), (2,)), ((3, 1), (2,)), ((), (2, 3))])
    attrs = {"a_zp": d.int(-9, 9), "b_zp": d.int(-9, 9), "mult": _scale(d, 0.0005, 0.02)}
    extra = _ending(d)
    return case("qmatmul", [d.int8((*left, rows, depth)), d.int8((*right, depth, columns))], attrs | extra)


def qsoftmax(d: Dice) -> Case:
    wide = {"mult": 65536.0, **_clamp(d, wide=True), "zp": -32768}
    attrs = d.pick([{"mult": 1.0, "dtype": DType.F32}, {"mult": 256.0, **_clamp(d), "zp": -128}, wide])
    x = d.int8((*d.shape(0, 2), d.int(1, 40)))
    return case("qsoftmax", [x, exponentials(_scale(d, 0.01, 0.2))], attrs, constants=(1,))


def qlayer_norm(d: Dice) -> Case:
    size, wide = d.int(1, 40), d.bool()
    shape = (*d.shape(0, 2), size)
    x = d.ints(shape, -32768, 32767, np.int16) if wide else d.int8(shape)
    sides = [d.floats((size,), 20.0), d.floats((size,), 10.0)]
    attrs = {"epsilon": float(np.float32(d.pick([0.0, 0.5, 1e4])))} | _ending(d)
    return case("qlayer_norm", [x, *sides], attrs, constants=(1, 2))


def table(d: Dice) -> Case:
    return case("table", [d.int8(d.shape()), d.int8((256,))], constants=(1,) if d.bool() else ())


def qavg_pool(d: Dice) -> Case:
    kernel = (d.int(1, 3), d.int(1, 3))
    attrs = {
        "kernel": kernel,
        "strides": (d.int(1, 2), d.int(1, 2)),
        "pads": tuple(d.int(0, kernel[i % 2] - 1) for i in range(4)),
        "count_include_pad": d.bool(),
        "x_zp": d.int(-9, 9),
        "ratio": float(d.rng.uniform(0.5, 1.5)),
        **_clamp(d),
    }
    return case("qavg_pool", [d.int8(_image(d, "NHWC", d.int(1, 3), 4, 6))], attrs)


def _grid(d: Dice, shape: tuple[int, ...]) -> dict:
    dtype = d.pick([DType.I8, DType.U8, DType.I16, DType.I8])
    low, high = dtype.limits
    middle = (low + high) // 2
    if shape and d.bool():
        axis = d.int(0, len(shape) - 1)
        scales = d.rng.uniform(0.01, 0.1, shape[axis])
        return {"quant": Quantization.per_channel(scales, axis, np.full(shape[axis], middle)), "dtype": dtype}
    return {"quant": Quantization.per_tensor(_scale(d), middle + d.int(-9, 9)), "dtype": dtype}


def _quantizing(name: str) -> Callable[[Dice], Case]:
    def build(d: Dice) -> Case:
        shape = d.shape()
        attrs = _grid(d, shape)
        if name == "quantize" and attrs["quant"].axis is None and d.bool():
            attrs["perm"] = tuple(int(axis) for axis in d.rng.permutation(len(shape)))
        return case(name, [d.floats(shape)], attrs)

    return build


def dequantize(d: Dice) -> Case:
    shape = d.shape()
    grid = _grid(d, shape)
    x = d.ints(shape, *grid["dtype"].limits, dtype=grid["dtype"].numpy)
    return case("dequantize", [x], quants={0: grid["quant"]})


def dynamic_quantize(d: Dice) -> Case:
    attrs = {"dtype": d.pick([DType.U8, DType.I8]), "per_row": d.bool()}
    return case("dynamic_quantize", [d.floats(d.shape(1, 4))], attrs)


def dynamic_qgemm(d: Dice) -> Case:
    k, n = d.int(1, 12), d.int(1, 5)
    x, w = d.int8((*d.shape(0, 2), k)), d.ints((n, k), -127, 127, np.int8)
    grid = x.shape[:-1] if d.bool() else ()
    scale, zero = np.abs(d.floats(grid, 0.1)), d.int8(grid)
    bias = d.floats((n,)) if d.bool() else None
    w_zp = d.ints((n,), -9, 9, np.int8) if d.bool() else None
    operands = [x, scale, zero, w, np.abs(d.floats((n,), 0.01)), bias, w_zp]
    return case("dynamic_qgemm", operands, constants=(3, 4, 5, 6))


def _layer(d: Dice, gates: int) -> tuple[list[np.ndarray], list[np.ndarray | None], float]:
    """Operands x and r, initial state and scales, and the step of the state, of a recurrent layer."""
    batch, hidden, integer = d.int(1, 3), d.int(1, 5), d.bool()
    x = d.floats((d.int(1, 4), batch, gates * hidden), 1.0)
    r = d.ints((gates * hidden, hidden), -127, 127, np.int8) if integer else d.floats((gates * hidden, hidden), 0.5)
    scales = np.abs(d.floats((gates * hidden,), 0.005)) if integer else None
    grid = float(np.float32(0.01)) if integer and d.bool() else 0.0
    return [x, r], [d.floats((batch, hidden), 0.3) if d.bool() else None, scales], grid


def lstm(d: Dice) -> Case:
    (x, r), (h0, scales), grid = _layer(d, 4)
    c0 = d.floats(h0.shape) if h0 is not None and d.bool() else None
    return case("lstm", [x, r, h0, c0, scales], {"reverse": d.bool(), "state_scale": grid}, constants=(1, 4))


def gru(d: Dice) -> Case:
    (x, r), (h0, scales), grid = _layer(d, 3)
    linear = d.bool()
    bias = d.floats((r.shape[1],)) if linear and d.bool() else None
    attrs = {"reverse": d.bool(), "linear_before_reset": linear, "state_scale": grid}
    return case("gru", [x, r, bias, h0, scales], attrs, constants=(1, 2, 4))


def matmul_integer(d: Dice) -> Case:
    m, k, n = d.int(1, 4), d.int(1, 9), d.int(1, 4)
    a, b = d.ints((m, k), 0, 255, np.uint8), d.ints((k, n), -128, 127, np.int8)
    a_zp = np.asarray(d.int(0, 255), np.uint8) if d.bool() else None
    b_zp = d.pick([np.asarray(3, np.int8), d.ints((n,), -9, 9, np.int8)]) if a_zp is not None and d.bool() else None
    return case("matmul_integer", [a, b, a_zp, b_zp], constants=(1, 2, 3))


def conv_integer(d: Dice) -> Case:
    groups = d.int(1, 2)
    inner, outer = d.int(1, 2), d.int(1, 2)
    x = d.ints((1, groups * inner, 5, 6), 0, 255, np.uint8)
    w = d.ints((groups * outer, inner, d.int(1, 3), d.int(1, 3)), 0, 255, np.uint8)
    x_zp = np.asarray(d.int(0, 255), np.uint8) if d.bool() else None
    w_zp = np.asarray(7, np.uint8) if x_zp is not None and d.bool() else None
    attrs = {"strides": (1, d.int(1, 2)), "pads": tuple(d.int(0, 1) for _ in range(4)), "groups": groups}
    return case("conv_integer", [x, w, x_zp, w_zp], attrs, constants=(1, 2, 3))


CASES: dict[str, Callable[[Dice], Case]] = {
    **{row.name: _unary(row) for row in unary.ROWS},
    **{row.name: _binary(row) for row in binary.ROWS},
    **{row.name: _reduce(row) for row in reduce.ROWS},
    **{f.__name__.rstrip("_"): f for f in (conv2d, conv_transpose2d, gemm, matmul, max_pool, avg_pool, where, prelu)},
    **{f.__name__.rstrip("_"): f for f in (layer_norm, batch_norm, instance_norm, lrn, identity, reshape, transpose)},
    **{f.__name__.rstrip("_"): f for f in (concat, slice_, pad, split, expand, tile, depth_to_space, space_to_depth)},
    **{f.__name__.rstrip("_"): f for f in (cast, gather, one_hot, resize, qconv2d, qconv_transpose2d, qgemm, qadd)},
    **{f.__name__: f for f in (qmul, table, qavg_pool, dequantize, dynamic_quantize, matmul_integer, conv_integer)},
    **{f.__name__: f for f in (rescale, attention, qattention, qmatmul, qsoftmax, qlayer_norm)},
    **{f.__name__: f for f in (dynamic_qgemm, lstm, gru)},
    **{name: _quantizing(name) for name in ("fake_quant", "quantize")},
    **{name: _arg(name) for name in ("argmax", "argmin")},
    **{name: _along_axis(name) for name in ("softmax", "log_softmax", "cumsum")},
}
