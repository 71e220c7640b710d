"""Properties over generated integer graphs: bounds hold, clamps and dead channels go without a change of any bit."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcomp.ir import DType, Graph, Quantization, TensorType, run, verify
from qcomp.ir.graph import Value
from qcomp.passes.dead_channels import RemoveDeadChannels, find_dead_channels
from qcomp.passes.manager import Checker, run_passes
from qcomp.passes.prove_accumulators import accumulator_bounds
from qcomp.passes.range_analysis import analyze_ranges
from qcomp.passes.tighten_clamps import TightenClamps

QUANT = Quantization.per_tensor(0.5, 0)


class Builder:
    """Grows a graph of integer ops on i8[1,6,5,C] from choices that hypothesis makes."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.graph = Graph("random")
        self.values = [self.graph.input("x", TensorType(DType.I8, (1, 6, 5, 3), QUANT))]

    def integer(self, low: int = -128, high: int = 127) -> int:
        return self.draw(st.integers(low, high))

    def multiplier(self) -> float:
        return float(np.float32(self.rng.uniform(0.001, 0.9) * self.rng.choice([1, 1, 1, -1])))

    def clamp(self) -> dict[str, object]:
        low, high = sorted((self.integer(), self.integer())) if self.draw(st.booleans()) else (-128, 127)
        return {"zp": self.integer(), "lo": low, "hi": high}

    def add(self, op: str, *inputs: Value | None, **attrs: object) -> None:
        node = self.graph.add(op, inputs, attrs, quants=[QUANT])  # type: ignore[arg-type]
        self.values.append(node.output)

    def table_constant(self) -> Value:
        kind = self.draw(st.sampled_from(["clipped", "random", "falling", "constant"]))
        every = np.arange(-128, 128)
        entries = {
            "clipped": np.clip(every, -10, 50),
            "random": self.rng.integers(-128, 128, 256),
            "falling": -every - 1,
            "constant": np.full(256, 7),
        }[kind]
        return self.graph.constant(entries.astype(np.int8), "t")

    def product_constants(self, out: int, *taps: int) -> list[Value | None]:
        w = self.rng.integers(-127, 128, (out, *taps)).astype(np.int8)
        w[self.rng.random(out) < 0.3] = 0
        mult = self.rng.uniform(1e-4, 2e-2, out) * self.rng.choice([1, 1, 1, -1], out)
        constants = [w, self.rng.integers(-9000, 9000, out).astype(np.int32), mult.astype(np.float32)]
        operands: list[Value | None] = [self.graph.constant(c) for c in constants]
        return [*operands, self.table_constant()] if self.draw(st.booleans()) else operands

    def conv(self, x: Value) -> None:
        kernel, out = self.draw(st.sampled_from([1, 3])), self.draw(st.sampled_from([2, 4]))
        pads = (kernel // 2,) * 4
        constants = self.product_constants(out, kernel, kernel, x.shape[3])
        self.add("qconv2d", x, *constants, pads=pads, x_zp=self.integer(), **self.clamp())

    def pointwise(self, x: Value) -> None:
        self.add("qconv2d", x, *self.product_constants(3, 1, 1, x.shape[3]), x_zp=self.integer(), **self.clamp())

    def depthwise(self, x: Value) -> None:
        kernel = self.draw(st.sampled_from([1, 3]))
        attrs = {"pads": (kernel // 2,) * 4, "groups": x.shape[3], "x_zp": self.integer(), **self.clamp()}
        self.add("qconv2d", x, *self.product_constants(x.shape[3], kernel, kernel, 1), **attrs)

    def transposed(self, x: Value) -> None:
        constants = self.product_constants(2, 3, 3, x.shape[3])
        self.add("qconv_transpose2d", x, *constants, pads=(1, 1, 1, 1), x_zp=self.integer(), **self.clamp())

    def gemm(self, x: Value) -> None:
        self.add("qgemm", x, *self.product_constants(3, x.shape[3]), x_zp=self.integer(), **self.clamp())

    def table(self, x: Value) -> None:
        self.add("table", x, self.table_constant())

    def two(self, x: Value) -> None:
        other = self.draw(st.sampled_from([v for v in self.values if v.shape == x.shape]))
        tables = [self.table_constant()] if self.draw(st.booleans()) else []
        points = {"a_zp": self.integer(), "b_zp": self.integer(), **self.clamp()}
        if self.draw(st.booleans()):
            self.add("qadd", x, other, *tables, a_mult=self.multiplier(), b_mult=self.multiplier(), **points)
        else:
            self.add("qmul", x, other, *tables, mult=float(np.float32(self.multiplier() / 100)), **points)

    def average(self, x: Value) -> None:
        attrs = {"count_include_pad": self.draw(st.booleans()), "ratio": abs(self.multiplier()) * 2}
        pads = self.draw(st.sampled_from([(1, 1, 1, 1), (0, 0, 2, 2)]))
        self.add("qavg_pool", x, kernel=(3, 3), pads=pads, x_zp=self.integer(), **attrs, **self.clamp())

    def maximum(self, x: Value) -> None:
        self.add("max_pool", x, kernel=(3, 3), pads=(1, 1, 1, 1), layout="NHWC")


STEPS = ("conv", "pointwise", "pointwise", "depthwise", "transposed", "gemm", "table", "two", "average", "maximum")


@st.composite
def integer_graphs(draw: st.DrawFn) -> Graph:
    builder = Builder(draw)
    for _ in range(draw(st.integers(1, 8))):
        x = draw(st.sampled_from(builder.values[-2:]))
        getattr(builder, draw(st.sampled_from(STEPS)))(x)
    builder.graph.outputs = [builder.values[-1]]
    verify(builder.graph)
    return builder.graph


GENERATED = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def samples(graph: Graph) -> list[dict[str, np.ndarray]]:
    random = list(Checker.random(graph, samples=3).inputs)
    return random + [{"x": np.full(graph.inputs[0].shape, v, np.int8)} for v in (-128, 0, 127)]


@GENERATED
@given(integer_graphs())
def test_stored_integers_stay_inside_their_bounds(graph: Graph):
    ranges = analyze_ranges(graph)

    def inside(value: Value, array: np.ndarray) -> None:
        bound = ranges[value]
        assert (bound.lo <= array).all() and (array <= bound.hi).all(), value

    for sample in samples(graph):
        run(graph, sample, observe=inside)


@GENERATED
@given(integer_graphs())
def test_dead_channels_hold_the_constants_that_are_reported(graph: Graph):
    dead = {d.value: d for d in find_dead_channels(graph)}

    def check(value: Value, array: np.ndarray) -> None:
        if value.name in dead:
            found = dead[value.name]
            assert (array[..., list(found.channels)] == np.array(found.constants)).all()

    for sample in samples(graph):
        run(graph, sample, observe=check)


@GENERATED
@given(integer_graphs())
def test_clamps_and_dead_channels_go_without_a_change_of_any_bit(graph: Graph):
    passes = [TightenClamps(), RemoveDeadChannels(), TightenClamps()]
    result = run_passes(graph, passes, check=Checker(tuple(samples(graph))))
    for dead in find_dead_channels(result):  # what is left is the one channel that a tensor must have
        assert not dead.removable or result.value(dead.value).shape[-1] == 1


@GENERATED
@given(integer_graphs())
def test_accumulators_reach_no_further_than_their_bounds(graph: Graph):
    """Accumulators are read as the float32 result of the same product with multipliers of one."""
    bounds = {b.node: b for b in accumulator_bounds(graph)}
    for node in list(graph.nodes):
        if node.name in bounds:
            ones = graph.constant(np.ones(node.output.shape[-1], np.float32))
            attrs = {**node.attrs, "dtype": DType.F32, "zp": 0, "lo": -128, "hi": 127}
            probe = graph.add(node.op.name, [*node.inputs[:3], ones], attrs, names=[f"{node.name}.acc"])
            graph.outputs.append(probe.output)
    for sample in samples(graph):
        for name, array in run(graph, sample).items():
            if name.endswith(".acc"):
                assert (np.abs(array) <= np.asarray(bounds[name[:-4]].accumulator, np.float32)).all()
