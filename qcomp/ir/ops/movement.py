"""Ops that move elements without computing on them: any dtype, and quantization passes through."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qcomp.ir.intervals import collapse, full_rank, operand_interval, span, union
from qcomp.ir.ops.quantized import quantize_array
from qcomp.ir.registry import Attr, Call, Interval, Op, register
from qcomp.ir.shapes import check_axis, check_length, moved_quant, same_dtype
from qcomp.ir.types import DType, TensorType


class Movement(Op):
    """A move of one operand's elements; bounds of the whole tensor carry over."""

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        bound = span(operand_interval(call, operands, 0))
        return [bound for _ in call.results]


@register
class Identity(Movement):
    """y = x."""

    name = "identity"

    def infer(self, call: Call) -> Sequence[TensorType]:
        return [call.type(0)]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        assert operands[0] is not None
        return [operands[0]]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        return [operand_interval(call, operands, 0)]


def _kept_axes(old: tuple[int, ...], new: tuple[int, ...]) -> dict[int, int]:
    """Axes that a reshape keeps whole: same size, and as many elements before them."""
    before = {math.prod(new[:i]): i for i in range(len(new) - 1, -1, -1) if new[i] != 1}
    found = {}
    for axis, size in enumerate(old):
        twin = before.get(math.prod(old[:axis]))
        if twin is not None and new[twin] == size:
            found[axis] = twin
    return found


@register
class Reshape(Movement):
    """The elements in row-major order with another shape; `shape` is complete, without -1 or 0 for "as before"."""

    name = "reshape"
    attributes = {"shape": Attr("ints")}

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, shape = call.type(0), call.ints("shape")
        if any(d < 0 for d in shape) or math.prod(shape) != x.elements:
            raise call.fail(f"{list(x.shape)} has {x.elements} elements, shape {list(shape)} {math.prod(shape)}")
        return [x.with_shape(shape).with_quant(moved_quant(call, x, _kept_axes(x.shape, shape)))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        assert operands[0] is not None
        return [np.asarray(operands[0], order="C").reshape(call.ints("shape"))]


@register
class Transpose(Movement):
    """y[i_perm[0], i_perm[1], ...] = x[i_0, i_1, ...]: result axis k is operand axis perm[k]."""

    name = "transpose"
    attributes = {"perm": Attr("ints")}

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, perm = call.type(0), call.ints("perm")
        if sorted(perm) != list(range(x.rank)):
            raise call.fail(f"perm {list(perm)} is no permutation of {x.rank} axes")
        quant = moved_quant(call, x, {old: new for new, old in enumerate(perm)})
        return [x.with_shape(tuple(x.shape[a] for a in perm)).with_quant(quant)]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        assert operands[0] is not None
        return [np.asarray(operands[0].transpose(call.ints("perm")), order="C")]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        perm = call.ints("perm")
        x = full_rank(operand_interval(call, operands, 0), len(perm))
        return [Interval(x.lo.transpose(perm), x.hi.transpose(perm))]


@register
class Concat(Op):
    """Operands end to end along `axis`; one dtype and one quantization."""

    name = "concat"
    operands = ("xs*",)
    attributes = {"axis": Attr("int")}

    def infer(self, call: Call) -> Sequence[TensorType]:
        types = [call.type(i) for i in range(len(call.types))]
        if not types:
            raise call.fail("no operands")
        same_dtype(call, *types)
        first = types[0]
        axis = check_axis(call, call.int("axis"), first.rank)
        for type in types[1:]:
            if type.rank != first.rank or any(
                a != b for i, (a, b) in enumerate(zip(type.shape, first.shape, strict=True)) if i != axis
            ):
                shown = ", ".join(str(list(t.shape)) for t in types)
                raise call.fail(f"shapes {shown} differ outside axis {axis}")
            if type.quant != first.quant:
                raise call.fail("operands have different quantizations", fix="requantize them to one")
        if first.quant is not None and first.quant.axis == axis:
            raise call.fail("operands have their scales along the axis that grows")
        total = sum(t.shape[axis] for t in types)
        return [first.with_shape((*first.shape[:axis], total, *first.shape[axis + 1 :]))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        return [np.concatenate([o for o in operands if o is not None], axis=call.int("axis"))]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        axis, rank = call.int("axis"), call.type(0).rank
        bounds = [full_rank(operand_interval(call, operands, i), rank) for i in range(len(call.types))]
        sizes = [call.type(i).shape[axis] for i in range(len(call.types))]
        others = [np.broadcast_shapes(*(b.lo.shape[a : a + 1] for b in bounds))[0] for a in range(rank) if a != axis]
        lows, highs = [], []
        for bound, size in zip(bounds, sizes, strict=True):
            shape = (*others[:axis], size, *others[axis:])
            lows.append(np.broadcast_to(bound.lo, shape))
            highs.append(np.broadcast_to(bound.hi, shape))
        return [Interval(np.concatenate(lows, axis=axis), np.concatenate(highs, axis=axis))]


@register
class Slice(Movement):
    """x[start:end:step] in every dimension; 0 <= start, and an end of -1 with a negative step includes element 0."""

    name = "slice"
    attributes = {"starts": Attr("ints"), "ends": Attr("ints"), "steps": Attr("ints")}

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = call.type(0)
        triples = list(zip(*(check_length(call, n, x.rank) for n in ("starts", "ends", "steps")), strict=True))
        shape, whole = [], {}
        for axis, ((start, end, step), size) in enumerate(zip(triples, x.shape, strict=True)):
            count = 0 if step == 0 else max(0, -(-(end - start) // step))
            last = start + (count - 1) * step
            if step == 0 or (step > 0 and end < 0) or (count and not (0 <= start < size and 0 <= last < size)):
                raise call.fail(f"slice {start}:{end}:{step} leaves axis {axis} of size {size}")
            shape.append(count)
            if (start, count, step) == (0, size, 1):
                whole[axis] = axis
        return [x.with_shape(tuple(shape)).with_quant(moved_quant(call, x, whole))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        return [np.asarray(x[self._index(call)], order="C")]

    @staticmethod
    def _index(call: Call) -> tuple[slice, ...]:
        triples = zip(call.ints("starts"), call.ints("ends"), call.ints("steps"), strict=True)
        return tuple(slice(s, None if e < 0 else e, p) for s, e, p in triples)

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        x = full_rank(operand_interval(call, operands, 0), call.type(0).rank)
        if 0 in call.results[0].shape:
            return [span(x)]
        index = tuple(i if d != 1 else slice(None) for i, d in zip(self._index(call), x.lo.shape, strict=True))
        return [Interval(x.lo[index], x.hi[index])]


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


@register
class Pad(Movement):
    """Grows x by `pads` (begin of every axis, then end of every axis); negative pads cut.

    mode "constant" fills with `value`, a real that a quantized x holds quantized; the others repeat x.
    """

    name = "pad"
    attributes = {"pads": Attr("ints"), "mode": Attr("str", "constant"), "value": Attr("float", 0.0)}

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = call.type(0)
        pads = check_length(call, "pads", 2 * x.rank)
        mode = call.str("mode")
        if mode not in _PAD_MODES:
            raise call.fail(f"mode {mode!r} is not one of {', '.join(_PAD_MODES)}")
        shape = tuple(d + pads[a] + pads[a + x.rank] for a, d in enumerate(x.shape))
        if min(shape, default=0) < 0:
            raise call.fail(f"pads {list(pads)} cut more than {list(x.shape)} has")
        for axis, size in enumerate(x.shape):
            most = max(pads[axis], pads[axis + x.rank])
            if mode != "constant" and most > 0 and most > {"reflect": size - 1, "edge": most, "wrap": size}[mode]:
                raise call.fail(f"{mode} pads {list(pads)} are larger than axis {axis} of {list(x.shape)}")
        kept = {a: a for a in range(x.rank) if pads[a] == pads[a + x.rank] == 0}
        return [x.with_shape(shape).with_quant(moved_quant(call, x, kept))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        pads, rank = call.ints("pads"), x.ndim
        cut = tuple(slice(max(0, -pads[a]), x.shape[a] - max(0, -pads[a + rank])) for a in range(rank))
        grow = [(max(0, pads[a]), max(0, pads[a + rank])) for a in range(rank)]
        mode = call.str("mode")
        if mode == "constant":
            return [np.pad(x[cut], grow, constant_values=self.fill(call))]
        if mode == "wrap":
            return [np.pad(x[cut], grow, mode="wrap")]
        return [np.pad(x[cut], grow, mode="edge" if mode == "edge" else "reflect")]

    @staticmethod
    def fill(call: Call) -> np.ndarray:
        """The element that constant padding writes, of the operand's dtype, 0-d."""
        type, value = call.type(0), call.float("value")
        if type.quant is None:
            return np.asarray(value).astype(type.dtype.numpy)
        if type.quant.axis is not None:
            if value != 0.0 or any(type.quant.zero_point):
                raise call.fail("a tensor with one scale a channel pads with zeros only")
            return np.zeros((), type.dtype.numpy)
        return quantize_array(np.asarray(value, np.float32), type.quant, type.dtype)

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        rank, pads = call.type(0).rank, call.ints("pads")
        padded = tuple(a for a in range(rank) if pads[a] or pads[a + rank])
        x = collapse(operand_interval(call, operands, 0), rank, padded)
        if call.str("mode") == "constant" and padded:
            value = float(self.fill(call))
            x = union(x, Interval.of(value, value))
        return [x]


@register
class Split(Movement):
    """Parts of x along `axis`, of the given sizes, one result each."""

    name = "split"
    attributes = {"axis": Attr("int"), "sizes": Attr("ints")}
    results = -1

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, sizes = call.type(0), call.ints("sizes")
        axis = check_axis(call, call.int("axis"), x.rank)
        if not sizes or min(sizes) < 0 or sum(sizes) != x.shape[axis]:
            raise call.fail(f"sizes {list(sizes)} do not add up to axis {axis} of {list(x.shape)}")
        part = x.with_quant(moved_quant(call, x, {a: a for a in range(x.rank) if a != axis}))
        return [part.with_shape((*x.shape[:axis], size, *x.shape[axis + 1 :])) for size in sizes]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        ends = np.cumsum(call.ints("sizes"))[:-1]
        return [np.ascontiguousarray(p) for p in np.split(x, ends, axis=call.int("axis"))]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        axis = call.int("axis")
        x = full_rank(operand_interval(call, operands, 0), call.type(0).rank)
        if x.lo.shape[axis] == 1:
            return [x for _ in call.results]
        ends = np.cumsum(call.ints("sizes"))[:-1]
        return [Interval(*p) for p in zip(np.split(x.lo, ends, axis), np.split(x.hi, ends, axis), strict=True)]


@register
class Expand(Movement):
    """Broadcast to `shape`, which the shape of x broadcasts to exactly."""

    name = "expand"
    attributes = {"shape": Attr("ints")}

    def infer(self, call: Call) -> Sequence[TensorType]:
        x, shape = call.type(0), call.ints("shape")
        try:
            fits = np.broadcast_shapes(x.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise call.fail(f"{list(x.shape)} does not broadcast to {list(shape)}")
        added = len(shape) - x.rank
        kept = {a: a + added for a in range(x.rank) if x.shape[a] == shape[a + added]}
        return [x.with_shape(shape).with_quant(moved_quant(call, x, kept))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        assert operands[0] is not None
        return [np.array(np.broadcast_to(operands[0], call.ints("shape")))]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        return [operand_interval(call, operands, 0)]


@register
class Tile(Movement):
    """x repeated `repeats[a]` times along every axis a."""

    name = "tile"
    attributes = {"repeats": Attr("ints")}

    def infer(self, call: Call) -> Sequence[TensorType]:
        x = call.type(0)
        repeats = check_length(call, "repeats", x.rank)
        if min(repeats, default=0) < 0:
            raise call.fail(f"repeats {list(repeats)} are negative")
        kept = {a: a for a in range(x.rank) if repeats[a] == 1}
        shape = tuple(d * r for d, r in zip(x.shape, repeats, strict=True))
        return [x.with_shape(shape).with_quant(moved_quant(call, x, kept))]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        assert operands[0] is not None
        return [np.tile(operands[0], call.ints("repeats"))]


@register
class Cast(Op):
    """Converts the element type.

    Floats to integers truncate toward zero and clamp to the type's range, NaN becomes 0.  Integers to integers wrap.
    To bool: x != 0.  To floats: round to nearest even.  Quantized operands do not cast.
    """

    name = "cast"
    attributes = {"dtype": Attr("dtype")}

    def infer(self, call: Call) -> Sequence[TensorType]:
        if call.type(0).quant is not None:
            raise call.fail("operand is quantized", fix="dequantize it instead")
        return [TensorType(call.dtype("dtype"), call.type(0).shape)]

    def evaluate(self, call: Call, *operands: np.ndarray | None) -> Sequence[np.ndarray]:
        (x,) = operands
        assert x is not None
        return [cast_array(x, call.dtype("dtype"))]

    def interval(self, call: Call, *operands: Interval | None) -> Sequence[Interval]:
        x, to = operand_interval(call, operands, 0), call.dtype("dtype")
        if to is DType.BOOL:
            return [Interval.of(0, 1)]
        if to.is_float:
            with np.errstate(all="ignore"):
                return [Interval(*(e.astype(to.numpy).astype(np.float64) for e in (x.lo, x.hi)))]
        least, most = to.limits
        if call.type(0).dtype.is_float:
            # NaN becomes 0, and NaN lies in no interval: a bounded operand has none
            low, high = (np.clip(np.trunc(e), least, most) for e in (x.lo, x.hi))
            unbounded = np.isinf(x.lo) | np.isinf(x.hi)
            return [
                Interval(
                    np.where(unbounded, np.minimum(low, 0), low).astype(np.float64),
                    np.where(unbounded, np.maximum(high, 0), high).astype(np.float64),
                )
            ]
        inside = np.all(x.lo >= least) and np.all(x.hi <= most)
        return [x if inside else Interval.of(least, most)]


def cast_array(x: np.ndarray, dtype: DType) -> np.ndarray:
    """x converted as the op `cast` states."""
    target = dtype.numpy
    if x.dtype.kind == "f" and dtype.is_integer:
        least, most = dtype.limits
        whole = np.where(np.isnan(x), 0.0, np.trunc(x.astype(np.float64)))
        # float64 holds every limit but those of 64 bits exactly: compare, then convert what is inside
        above, below = whole >= float(most), whole <= float(least)
        inner = np.where(above | below, 0.0, whole).astype(target)
        return np.where(above, target.type(most), np.where(below, target.type(least), inner))
    with np.errstate(all="ignore"):
        return np.asarray(x.astype(target))
