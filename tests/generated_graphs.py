"""Integer graphs grown at random from a seed: awkward shapes, windows, zero points, clamps, ties and topologies.

Many small graphs share one Graph, so that one compiler run covers them all; `alone` grows one again by itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from qcomp.codegen.backends import table_of
from qcomp.codegen.build import build_library
from qcomp.codegen.c.emit import generate
from qcomp.codegen.c.package import SourcePackage
from qcomp.ir import DType, Graph, Quantization, TensorType, Value, print_graph, run, verify
from qcomp.ir.halves import from_halves, to_halves
from qcomp.runtime.loader import load
from qcomp.targets import target

Seed = tuple[int, ...]
QUANT = Quantization.per_tensor(0.5, 3)
# Around the widths that vectors and tiles have, and primes that no tile divides.
CHANNELS = (1, 1, 2, 3, 4, 5, 7, 8, 11, 13, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 127, 128, 129)
SIZES = (1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 16, 17)
UNARY = ("relu", "sigmoid", "tanh", "hard_swish", "silu", "exp", "abs", "neg", "erf", "softplus")
SMALL, LARGE = 6000, 70_000  # elements of an activation: few, or enough for several chunks and tasks


class Grower:
    """One small graph inside a larger one: values of its own, numbers from a generator of its own."""

    def __init__(self, graph: Graph, feeds: dict[str, np.ndarray], seed: Seed) -> None:
        self.graph, self.feeds = graph, feeds
        self.rng = np.random.default_rng(seed)
        self.name = "g" + "_".join(map(str, seed))
        self.values: list[Value] = []
        self.outputs: list[Value] = []
        self.most = LARGE if self.chance(0.06) else SMALL

    # ---- choices ----

    def pick(self, options: Sequence):  # type: ignore[no-untyped-def,type-arg]
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def below(self, limit: int) -> int:
        return int(self.rng.integers(limit))

    def zero_point(self) -> int:
        return int(self.pick([0, 0, -128, 127, int(self.rng.integers(-128, 128))]))

    def clamp(self) -> dict[str, int]:
        low, high = -128, 127
        if self.chance(0.4):
            low, high = sorted(self.rng.integers(-128, 128, 2).tolist())
        return {"zp": self.zero_point(), "lo": low, "hi": high}

    def mults(self, depth: int, count: int) -> np.ndarray:
        """Multipliers that spread results over int8; some saturate, vanish, flip signs, or make ties."""
        usual = self.rng.uniform(0.2, 3.0, count) * 60 / (73 * 73 * np.sqrt(depth))
        kind = self.below(8)
        if kind == 0:
            usual = 2.0 ** -self.rng.integers(1, 9, count)  # halves are common: round half to even shows
        elif kind == 1:
            usual *= self.pick([100.0, 0.01, 1e6, 1e-30])
        elif kind == 2:
            usual *= self.rng.choice([1.0, -1.0, 0.0], count)
        mults = usual.astype(np.float32)
        return from_halves(*to_halves(mults)) if self.chance(0.5) else mults

    def mult(self) -> float:
        usual = self.pick([0.5, 1.0, 0.25, 1.5, float(self.rng.uniform(0.01, 2)), float(self.rng.uniform(-1, 1))])
        return float(np.float32(usual))

    def integers(self, shape: Sequence[int], low: int, high: int, dtype: type = np.int8) -> np.ndarray:
        return self.rng.integers(low, high + 1, tuple(shape)).astype(dtype)

    # ---- building ----

    def constant(self, array: np.ndarray, quant: Quantization | None = None) -> Value:
        return self.graph.constant(array, f"{self.name}.c", quant)

    def input(self, shape: Sequence[int], real: bool | None = None) -> Value:
        """A fresh activation: an int8 graph input, or a float one that is quantized first."""
        real = self.chance(0.5) if real is None else real
        name = self.graph.fresh_name(f"{self.name}.x")
        if not real:
            self.feeds[name] = self.edges(self.integers(shape, -128, 127))
            return self.keep(self.graph.input(name, TensorType(DType.I8, tuple(shape), QUANT)))
        self.feeds[name] = self.rng.uniform(-70, 70, tuple(shape)).astype(np.float32)
        return self.keep(self.raw("quantize", [self.graph.input(name, TensorType.f32(*shape))], quant=QUANT))

    def edges(self, data: np.ndarray) -> np.ndarray:
        return np.where(self.rng.random(data.shape) < 0.1, self.pick([-128, 127, 0]), data).astype(data.dtype)

    def keep(self, value: Value) -> Value:
        self.values.append(value)
        return value

    def raw(self, op: str, operands: Sequence[Value | None], **attrs: object) -> Value:
        """A node whose result is not offered to later ops."""
        node = self.graph.add(op, list(operands), attrs, names=[f"{self.name}.{op}"])  # type: ignore[arg-type]
        for value in node.outputs:
            if value.dtype is DType.I8 and value.quant is None:
                value.type = value.type.with_quant(QUANT)
        return node.outputs[0]

    def add(self, op: str, operands: Sequence[Value | None], **attrs: object) -> None:
        self.keep(self.raw(op, operands, **attrs))

    def table_operand(self) -> list[Value | None]:
        return [self.constant(self.integers((256,), -128, 127))] if self.chance(0.25) else []

    def image(self, channels: Sequence[int] = CHANNELS) -> Value:
        """A rank 4 activation that exists, or a new one."""
        found = [v for v in self.values[-3:] if v.type.rank == 4]
        if found and self.chance(0.85):
            return found[-1] if self.chance(0.7) else self.pick(found)
        large = self.most == LARGE
        while True:
            sizes = (*SIZES, 33, 56) if large else SIZES
            shape = (self.pick([1, 1, 1, 2]), self.pick(sizes), self.pick(sizes), self.pick(channels))
            if (self.most // 4 if large else 0) <= np.prod(shape) <= self.most:
                return self.input(shape)

    def any(self) -> Value:
        if self.values and self.chance(0.9):
            return self.pick(self.values[-3:])
        rank = self.below(4) + 1
        return self.image() if rank == 4 else self.input([self.pick(CHANNELS[:16]) for _ in range(rank)])

    # ---- ops ----

    def window(self, x: Value, *, dilated: bool = True) -> dict[str, tuple[int, ...]]:
        """Kernel, strides, dilations and pads that fit x."""
        while True:
            kernel = self.pick([(1, 1), (1, 1), (3, 3), (3, 3), (5, 5), (2, 2), (1, 3), (3, 1), (4, 2), (7, 7), (1, 7)])
            dilations = self.pick([(1, 1), (1, 1), (1, 1), (2, 2), (1, 3), (2, 1)]) if dilated else (1, 1)
            reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
            pads = self.pick([(0,) * 4, tuple(r // 2 for r in (*reach, *reach)), (0, 0, 1, 1), None])
            if pads is None:
                pads = tuple(self.below(r + 1) for r in (*reach, *reach))
            if all(x.shape[1 + a] + pads[a] + pads[2 + a] >= reach[a] for a in range(2)):
                strides = self.pick([(1, 1), (1, 1), (2, 2), (1, 2), (3, 1)])
                return {"kernel": kernel, "strides": strides, "dilations": dilations, "pads": pads}

    def product(self, out: int, *taps: int) -> list[Value | None]:
        """Weights, bias, multipliers and perhaps a table of a product."""
        depth = int(np.prod(taps))
        reach = self.pick([100, 20_000, 20_000, 1 << 24])
        arrays = [self.edges(self.integers((out, *taps), -127, 127)), self.integers((out,), -reach, reach, np.int32)]
        arrays[0] = np.maximum(arrays[0], -127).astype(np.int8)
        return [*map(self.constant, [*arrays, self.mults(depth, out)]), *self.table_operand()]

    def output_type(self, operands: list[Value | None]) -> dict[str, object]:
        """Clamp and result type; a float result is an output, or goes back to integers."""
        if self.chance(0.1):
            del operands[4:]
            return {**self.clamp(), "dtype": DType.F32}
        return {**self.clamp(), "dtype": DType.I8}

    def finish(self, op: str, operands: list[Value | None], **attrs: object) -> None:
        attrs |= self.output_type(operands)
        result = self.raw(op, operands, **attrs)
        if result.dtype is DType.F32:
            if self.chance(0.5):
                self.outputs.append(result)
            result = self.raw("quantize", [result], quant=QUANT)
        self.keep(result)

    def conv(self) -> None:
        x = self.image()
        window = self.window(x)
        kernel, out = window.pop("kernel"), self.pick(CHANNELS)
        operands = [x, *self.product(out, *kernel, x.shape[3])]
        self.finish("qconv2d", operands, **window, x_zp=self.zero_point())
        if self.chance(0.35):
            self.with_residual(operands, window)

    def with_residual(self, operands: list[Value | None], window: dict[str, tuple[int, ...]]) -> None:
        """The convolution just made once more, with its result (or one like it) added before rounding."""
        y = self.values[-1]
        if y.producer is None or y.producer.op.name != "qconv2d" or len(operands) < 4:
            return
        like = [v for v in self.values if v.shape == y.shape and v.dtype is DType.I8]
        table = operands[4:] or [None]
        attrs = {"x_zp": self.zero_point(), "r_zp": self.zero_point(), "r_mult": self.mult(), **self.clamp()}
        self.add("qconv2d", [*operands[:4], *table, self.pick(like)], **window, **attrs)

    def depthwise(self) -> None:
        x = self.image()
        window = self.window(x)
        kernel = window.pop("kernel")
        out = x.shape[3] * self.pick([1, 1, 1, 2])
        operands = [x, *self.product(out, *kernel, 1)]
        self.finish("qconv2d", operands, **window, x_zp=self.zero_point(), groups=x.shape[3])

    def grouped(self) -> None:
        groups, inner = self.pick([2, 3, 4, 8]), self.pick([2, 3, 4, 8, 9])
        x = self.input((1, self.pick(SIZES[:9]), self.pick(SIZES[:9]), groups * inner))
        window = self.window(x)
        kernel = window.pop("kernel")
        operands = [x, *self.product(groups * self.pick([1, 2, 5, 16]), *kernel, inner)]
        self.finish("qconv2d", operands, **window, x_zp=self.zero_point(), groups=groups)

    def transposed(self) -> None:
        x = self.image(CHANNELS[:15])
        kernel, strides = self.pick([(2, 2), (3, 3), (4, 4), (1, 3)]), self.pick([(1, 1), (2, 2), (3, 2)])
        if x.type.elements * strides[0] * strides[1] > self.most:
            return
        operands = [x, *self.product(self.pick(CHANNELS[:15]), *kernel, x.shape[3])]
        pads = self.pick([(0, 0, 0, 0), (0, 0, 0, 0), tuple(min(1, (k - 1) // 2) for k in (*kernel, *kernel))])
        extra = tuple(self.below(s) for s in strides)
        attrs = {"strides": strides, "pads": pads, "output_pads": extra, "x_zp": self.zero_point()}
        self.finish("qconv_transpose2d", operands, **attrs)

    def gemm(self) -> None:
        x = self.any()
        if x.type.rank:
            operands = [x, *self.product(self.pick([*CHANNELS, 10, 200]), x.shape[-1])]
            self.finish("qgemm", operands, x_zp=self.zero_point())

    def other_operand(self, x: Value) -> Value:
        """Something that broadcasts with x: an equal value, x itself, a new one, a constant."""
        same = [v for v in self.values if v.shape == x.shape]
        kind = self.below(4)
        if kind < 2:
            return self.pick(same)
        shape = tuple(d if self.chance(0.6) else 1 for d in x.shape)[self.below(x.type.rank + 1) if kind == 2 else 0 :]
        return self.input(shape) if self.chance(0.6) else self.constant(self.integers(shape, -128, 127), QUANT)

    def sum(self) -> None:
        x = self.any()
        pair = [x, self.other_operand(x)]
        if self.chance(0.3):
            pair.reverse()
        attrs = {"a_zp": self.zero_point(), "b_zp": self.zero_point(), "a_mult": self.mult(), "b_mult": self.mult()}
        self.add("qadd", [*pair, *self.table_operand()], **attrs, **self.clamp())

    def scale(self) -> None:
        x = self.any()
        pair = [x, self.other_operand(x)]
        mult = float(np.float32(self.pick([2.0**-7, 2.0**-5, 0.01, 1e-4, -0.02])))
        attrs = {"a_zp": self.zero_point(), "b_zp": self.zero_point(), "mult": mult}
        self.add("qmul", [*pair, *self.table_operand()], **attrs, **self.clamp())

    def table(self) -> None:
        self.add("table", [self.any(), self.constant(self.integers((256,), -128, 127))])

    def average(self) -> None:
        x = self.image()
        window = self.window(x, dilated=False)
        if self.chance(0.4):
            window |= {"kernel": x.shape[1:3], "pads": (0, 0, 0, 0), "strides": (1, 1)}
        del window["dilations"]
        ratio, whole = self.pick([1.0, 0.5, float(self.rng.uniform(0.1, 3))]), self.chance(0.3)
        attrs = {"x_zp": self.zero_point(), "ratio": ratio, "count_include_pad": whole, **self.clamp()}
        self.add("qavg_pool", [x], **window, **attrs)

    def maximum(self) -> None:
        x = self.image()
        window = self.window(x)
        area = [d * (k - 1) for d, k in zip(window["dilations"], window["kernel"], strict=True)]
        window["pads"] = tuple(min(p, area[i % 2] // 2) for i, p in enumerate(window["pads"]))
        if any(x.shape[1 + a] + window["pads"][a] + window["pads"][2 + a] <= area[a] for a in range(2)):
            window |= {"kernel": (1, 1), "pads": (0, 0, 0, 0)}
        self.add("max_pool", [x], **window, layout="NHWC")

    def concat(self) -> None:
        x = self.any()
        axis = self.below(x.type.rank) if x.type.rank else -1
        alike = [v for v in self.values if v.type.rank == x.type.rank and v.quant == x.quant
                 and all(v.shape[a] == x.shape[a] for a in range(x.type.rank) if a != axis)]  # fmt: skip
        if axis >= 0 and x.type.elements <= self.most // 3:
            pieces = [x, *(self.pick(alike) for _ in range(self.below(3)))]
            if self.chance(0.4):
                shape = tuple(self.pick(CHANNELS[:12]) if a == axis else d for a, d in enumerate(x.shape))
                fresh = self.input(shape)
                pieces += [fresh] if fresh.quant == x.quant else []
            self.add("concat", pieces, axis=axis)

    def cut(self) -> None:
        x = self.any()
        starts, ends, steps = [], [], []
        for size in x.shape:
            first = self.below(size)
            last = first + self.below(size - first) + 1
            step = self.pick([1, 1, 1, 2, 3])
            backwards = self.chance(0.1)
            starts.append(last - 1 if backwards else first)
            ends.append(first - 1 if backwards else last)
            steps.append(-step if backwards else step)
        self.add("slice", [x], starts=tuple(starts), ends=tuple(ends), steps=tuple(steps))

    def split(self) -> None:
        x = self.any()
        axis = self.below(max(1, x.type.rank))
        if x.type.rank and x.shape[axis] > 1:
            first = self.pick([1, x.shape[axis] // 2, x.shape[axis] - 1]) or 1
            node = self.graph.add("split", [x], {"axis": axis, "sizes": (first, x.shape[axis] - first)},
                                  names=[f"{self.name}.split"])  # fmt: skip
            self.values += node.outputs

    def permute(self) -> None:
        x = self.any()
        self.add("transpose", [x], perm=tuple(int(a) for a in self.rng.permutation(x.type.rank)))

    def reshape(self) -> None:
        x = self.any()
        n = x.type.elements
        divisor = self.pick([d for d in range(1, 40) if n % d == 0])
        self.add("reshape", [x], shape=self.pick([(n,), (divisor, n // divisor), (1, divisor, n // divisor, 1),
                                                  (1, 1, n // divisor, divisor)]))  # fmt: skip

    def pad(self) -> None:
        x = self.any()
        if x.type.rank and x.type.elements < self.most // 8:
            pads = tuple(self.pick([0, 0, 1, 2]) for _ in range(2 * x.type.rank))
            mode = self.pick(["constant", "constant", "edge"])
            self.add("pad", [x], pads=pads, mode=mode, value=self.pick([0.0, 0.0, 10.0]))

    def planar(self) -> None:
        """A planar image that becomes channels last, as at the start of most models."""
        x = self.input((self.pick([1, 1, 2]), self.pick([1, 2, 3, 3, 4, 5]), self.pick(SIZES), self.pick([*SIZES, 40])))
        self.add("transpose", [x], perm=(0, 2, 3, 1))
        if self.chance(0.5):
            self.planar_floats(self.values[-1])

    def planar_floats(self, x: Value) -> None:
        """Back to a planar image of reals, as at the end of many models."""
        back = self.raw("transpose", [self.raw("dequantize", [x])], perm=(0, 3, 1, 2))
        self.outputs.append(back)
        channels = self.image()
        self.outputs.append(self.raw("transpose", [self.raw("dequantize", [channels])], perm=(0, 3, 1, 2)))

    def resize(self) -> None:
        x = self.image(CHANNELS[:15])
        factors = self.pick([(2, 2), (1, 2), (3, 1), (2, 3)])
        if x.type.elements * 6 < self.most:
            sizes = (x.shape[0], x.shape[1] * factors[0], x.shape[2] * factors[1], x.shape[3])
            self.add("resize", [x], sizes=sizes, scales=(1.0, float(factors[0]), float(factors[1]), 1.0),
                     coordinates=self.pick(["asymmetric", "half_pixel"]), rounding="floor")  # fmt: skip

    def gather(self) -> None:
        x = self.any()
        if x.type.rank:
            axis = self.below(x.type.rank)
            index = self.integers((self.pick([1, 2, 5]),), 0, x.shape[axis] - 1, np.int64)
            self.add("gather", [x, self.constant(index)], axis=axis)

    def blocks(self) -> None:
        x = self.image()
        if x.shape[3] % 4 == 0 and self.chance(0.5):
            self.add("depth_to_space", [x], block=2, mode=self.pick(["DCR", "CRD"]), layout="NHWC")
        elif x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0:
            self.add("space_to_depth", [x], block=2, layout="NHWC")

    def island(self) -> None:
        """Float ops between integers."""
        x = self.any()
        y = self.raw("dequantize", [x])
        for _ in range(self.below(2) + 1):
            kind = self.below(3)
            if kind == 0 and x.type.rank:
                y = self.raw("softmax", [y], axis=self.below(x.type.rank))
            elif kind == 1:
                y = self.raw(self.pick(["add", "mul"]), [y, self.pick([y, self.constant(np.float32(0.37))])])
            else:
                y = self.raw(self.pick(UNARY), [y])
        if self.chance(0.3):
            self.outputs.append(y)
        self.keep(self.raw("quantize", [y], quant=QUANT))

    def attend(self) -> None:
        """Attention of an activation to itself, or to another; perhaps with a mask, a constant or not."""
        batch, heads, depth, width = (self.pick(o) for o in ([1, 1, 2], [1, 2, 3], SIZES, [*SIZES, 33]))
        rows, keys = (self.pick([*SIZES, 31, 33, 40, 65]) for _ in range(2))
        q, k = self.input((batch, rows, heads, depth)), self.input((batch, keys, heads, depth))
        v = self.input((batch, keys, heads, width))
        shape = tuple(self.pick([1, d]) for d in (batch, heads, rows)) + (self.pick([keys, keys, keys, 1]),)
        mask: list[Value | None] = []
        if self.chance(0.6):
            hidden = self.rng.choice(np.array([0, -1e4, -np.inf, 0.7], np.float32), shape)
            mask = [self.constant(hidden)]
            if self.chance(0.5):
                name = self.graph.fresh_name(f"{self.name}.x")
                self.feeds[name] = hidden
                mask = [self.graph.input(name, TensorType.f32(*shape))]
        attrs = {f"{n}_zp": self.zero_point() for n in "qkv"}
        scale = float(np.float32(self.rng.uniform(0.01, 3) / (5000 * np.sqrt(depth))))
        self.finish("qattention", [q, k, v, *mask], scale=scale, mult=self.mult(), **attrs)

    def multiply(self) -> None:
        """The product of two activations, either of which may have batches that the other lacks."""
        rows, depth, columns = (self.pick([*SIZES, 31, 33, 64, 65]) for _ in range(3))
        lead = [self.pick([(), (), (2,), (3, 2), (1,)]) for _ in range(2)]
        a, b = self.input((*lead[0], rows, depth)), self.input((*lead[1], depth, columns))
        if np.broadcast(np.empty(lead[0]), np.empty(lead[1])).size * rows * columns <= self.most:
            mult = float(np.float32(self.rng.uniform(0.5, 40) / (5000 * np.sqrt(depth))))
            self.finish("qmatmul", [a, b], a_zp=self.zero_point(), b_zp=self.zero_point(), mult=mult)

    def normalize(self) -> None:
        """layer_norm of floats between integers."""
        x = self.any()
        if not x.type.rank:
            return
        axis = self.below(x.type.rank)
        factors = [self.constant(self.rng.normal(1, 0.5, x.shape[axis:]).astype(np.float32)) for _ in range(2)]
        y = self.raw("layer_norm", [self.raw("dequantize", [x]), *factors[: self.below(2) + 1]], axis=axis)
        self.keep(self.raw("quantize", [y], quant=QUANT))

    def residual(self) -> None:
        """x + f(x), f a convolution that keeps the shape."""
        x = self.image()
        operands = [x, *self.product(x.shape[3], 3, 3, x.shape[3])]
        y = self.raw("qconv2d", operands, pads=(1, 1, 1, 1), x_zp=3, **self.clamp())
        pair = [x, y] if self.chance(0.5) else [y, x]
        self.add("qadd", [*pair, *self.table_operand()], a_zp=3, b_zp=-5, a_mult=0.5, b_mult=1.0, **self.clamp())

    def consumers(self) -> None:
        """One value that several windows read, each with its own padding and its own value of it."""
        x = self.image(CHANNELS[:18])
        for _ in range(self.below(2) + 2):
            reach = self.pick([0, 1, 1, 2])
            kernel = (2 * reach + 1,) * 2
            attrs = {"pads": (reach,) * 4, "x_zp": self.zero_point(), **self.clamp()}
            if self.chance(0.4):
                operands, groups = [x, *self.product(x.shape[3], *kernel, 1)], x.shape[3]
            else:
                operands, groups = [x, *self.product(self.pick([x.shape[3], 16, 5]), *kernel, x.shape[3])], 1
            self.add("qconv2d", operands, groups=groups, **attrs)
        same = [v for v in self.values if v.shape == x.shape]
        self.add("concat", [*same[-3:], x] if x.quant == same[-1].quant else same[-1:], axis=self.pick([0, 3, 3]))

    def words(self) -> None:
        """A stretch of int16: from a change of grid, a product or a norm, through ops that read it, and back."""
        x = self.any()
        if not x.type.rank:
            return
        wide = self.raw("rescale", [x], x_zp=self.zero_point(), mult=self.mult() * 256, **self.wide_clamp())
        for _ in range(self.below(4)):
            kind, n = self.below(7), wide.shape[-1]
            zp = int(self.pick([0, 0, 0, int(self.rng.integers(-3000, 3000))]))
            if kind == 0:
                operands = [wide, *self.product(self.pick(CHANNELS), n)]
                wide = self.raw("qgemm", operands[:4], x_zp=zp, **self.wide_clamp())
            elif kind == 1 and wide.type.rank == 4:
                window, groups = self.window(wide), self.pick([1, 1, n])
                outputs = self.pick(CHANNELS) if groups == 1 else n
                operands = [wide, *self.product(outputs, *window.pop("kernel"), n // groups)]
                wide = self.raw("qconv2d", operands[:4], x_zp=zp, groups=groups, **window, **self.wide_clamp())
            elif kind == 2 and n < 2**15:
                sides = [self.constant(self.rng.normal(0, 3000, n).astype(np.float32)) for _ in range(2)]
                epsilon = self.pick([0.0, 0.5, 1e6])
                wide = self.raw("qlayer_norm", [wide, *sides], epsilon=epsilon, **self.wide_clamp())
            elif kind == 3:
                same = [v for v in self.values if v.shape == wide.shape]
                other = self.pick([wide, *same, self.constant(self.integers(wide.shape, -32768, 32767, np.int16))])
                mults = {"a_mult": self.mult(), "b_mult": self.mult() * (256 if other.dtype is DType.I8 else 1)}
                pair = {"a_zp": zp, "b_zp": self.zero_point()}
                wide = self.raw("qadd", [wide, other], **pair, **mults, **self.wide_clamp())
            elif kind == 4:
                wide = self.raw("transpose", [wide], perm=tuple(int(a) for a in self.rng.permutation(wide.type.rank)))
            elif kind == 5 and wide.type.elements < self.most // 2:
                wide = self.raw("concat", [wide, wide], axis=self.below(wide.type.rank))
            else:
                wide = self.raw("rescale", [wide], x_zp=zp, mult=self.mult(), **self.wide_clamp())
            if wide.type.elements > self.most:
                break
        if self.chance(0.3):
            self.outputs.append(wide)
        ends = self.below(4)
        if ends == 0:
            self.finish("qgemm", [wide, *self.product(self.pick(CHANNELS), wide.shape[-1])], x_zp=0)
        elif ends == 1:
            sides = [self.constant(self.rng.normal(0, 40, wide.shape[-1]).astype(np.float32)) for _ in range(2)]
            self.finish("qlayer_norm", [wide, *sides], epsilon=0.0)
        elif ends == 2:
            self.add("qadd", [wide, wide], a_zp=5, b_zp=0, a_mult=self.mult() / 256, b_mult=0.0078125, **self.clamp())
        else:
            self.add("rescale", [wide], x_zp=0, mult=self.mult() / 256, **self.clamp())

    def wide_clamp(self) -> dict[str, object]:
        low, high = -32768, 32767
        if self.chance(0.3):
            low, high = sorted(self.rng.integers(low, high + 1, 2).tolist())
        return {"zp": int(self.pick([0, 0, 77, -5000])), "lo": low, "hi": high, "dtype": DType.I16}

    def finish_graph(self) -> None:
        """Outputs: the last value, and at times ones that other nodes read, inputs themselves, or one twice."""
        inputs = [v for v in self.graph.inputs if v.name.startswith(f"{self.name}.")]
        wanted = [*self.outputs, self.values[-1]]
        wanted += [v for v in self.values[:-1] if not self.graph.uses(v) or self.chance(0.15)]
        wanted += [v for v in inputs if self.chance(0.04)]
        self.graph.outputs += [v for v in dict.fromkeys(wanted) if not v.is_constant]


KINDS: dict[str, Callable[[Grower], None]] = {
    "conv": Grower.conv, "depthwise": Grower.depthwise, "grouped": Grower.grouped, "transposed": Grower.transposed,
    "gemm": Grower.gemm, "sum": Grower.sum, "scale": Grower.scale, "table": Grower.table, "average": Grower.average,
    "maximum": Grower.maximum, "concat": Grower.concat, "cut": Grower.cut, "split": Grower.split,
    "permute": Grower.permute, "planar": Grower.planar, "reshape": Grower.reshape, "pad": Grower.pad,
    "resize": Grower.resize, "gather": Grower.gather, "blocks": Grower.blocks, "island": Grower.island,
    "residual": Grower.residual, "consumers": Grower.consumers, "attend": Grower.attend, "normalize": Grower.normalize,
    "multiply": Grower.multiply, "words": Grower.words,
}  # fmt: skip
#: Kinds of products, and of everything that needs no floats where it rounds in fixed point.
PRODUCTS = ["conv", "gemm", "grouped", "depthwise", "residual", "consumers", "planar"]
INTEGERS = [*PRODUCTS, "sum", "scale", "table", "average", "maximum", "concat", "cut", "permute", "reshape", "pad"]
ALIASES = ("concat", "concat", "split", "cut", "reshape", "consumers", "residual", "sum", "conv", "maximum")


def grow(graph: Graph, feeds: dict[str, np.ndarray], seed: Seed, kinds: Sequence[str], steps: int) -> None:
    """Adds a graph of `steps` ops (at least one) of the given kinds."""
    grower = Grower(graph, feeds, seed)
    while True:
        for _ in range(steps):
            KINDS[grower.pick(kinds)](grower)
        if any(v.producer is not None for v in grower.values):
            break
    grower.finish_graph()


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays agree in type and every bit; any NaN equals any NaN."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind == "f":
        a, b = (np.where(np.isnan(x), x.dtype.type(np.nan), x) for x in (a, b))
    return a.tobytes() == b.tobytes()


class Batch:
    """Graphs that are compiled together: (seed, kinds, steps) of each."""

    def __init__(self, plans: Sequence[tuple[Seed, Sequence[str], int]]) -> None:
        self.graph, self.feeds = Graph("generated"), {}
        self.plans = {f"g{'_'.join(map(str, seed))}": (seed, kinds, steps) for seed, kinds, steps in plans}
        for seed, kinds, steps in plans:
            grow(self.graph, self.feeds, seed, kinds, steps)
        verify(self.graph)

    def wrong(
        self, target_name: str, threads: int = 1, prepare: Callable[[SourcePackage], SourcePackage] = lambda p: p,
        backend: str = "c",
    ) -> list[str]:  # fmt: skip
        """Outputs that differ from the interpreter's; `prepare` may change how a package is compiled."""
        expected = run(self.graph, self.feeds)
        package = prepare(generate(self.graph, target(target_name), table=table_of(backend)))
        with tempfile.TemporaryDirectory() as folder, load(
            build_library(package, Path(folder) / "model.so"), threads
        ) as model:
            found = [model.run(self.feeds) for _ in range(2)]
        return [n for n, array in expected.items() if not all(same_bits(array, f[n]) for f in found)]

    def text(self, output: str) -> str:
        """The graph that an output belongs to, alone."""
        graph: Graph = Graph("alone")
        grow(graph, {}, *self.plans[output.partition(".")[0]])
        return print_graph(graph)


def batch_of(
    seeds: Sequence[Seed], kinds: Sequence[str], most: int, floats: bool = True, steps: int = 1
) -> Batch:
    """Graphs of these seeds with constants of up to `most` bytes in all, so that they fit into flash; with floats, or
    integers alone."""
    chosen: list[tuple[Seed, Sequence[str], int]] = []
    for seed in seeds:
        graph: Graph = Graph("alone")
        grow(graph, {}, seed, kinds, steps)
        size = sum(value.type.bytes for value in graph.constants)
        real = any(v.dtype.is_float and not v.is_constant for v in graph.values)
        if size <= min(most, 24 << 10) and (floats or not real):
            most -= size
            chosen.append((seed, kinds, steps))
    return Batch(chosen)
