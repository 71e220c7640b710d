"""Properties over generated graphs: canonical form keeps results, bounds hold."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcomp.ir import Graph, Interval, TensorType, print_graph, run, verify
from qcomp.ir.graph import Value
from qcomp.passes.canonicalize import canonicalization, canonicalize
from qcomp.passes.manager import Checker, run_passes
from qcomp.passes.range_analysis import analyze_ranges

UNARY = ("relu", "sigmoid", "tanh", "hard_swish", "hard_sigmoid", "silu", "neg", "abs", "identity", "softplus", "erf")
SCALARS = (0.0, 1.0, -1.0, 0.5, 3.0, 6.0, 1 / 6, 2.0)


class Builder:
    """Grows a float graph from choices that hypothesis makes."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.graph = Graph("random")
        self.values: list[Value] = [self.graph.input("x", TensorType.f32(1, 4, 5, 6))]

    def constant(self, *shape: int) -> Value:
        return self.graph.constant((self.rng.integers(-8, 9, shape) / 8).astype(np.float32))

    def number(self) -> Value:
        value = np.float32(self.draw(st.sampled_from(SCALARS)))
        return self.graph.constant(np.full(self.draw(st.sampled_from([(), (1,), (1, 1, 1, 1)])), value))

    def add(self, op: str, *inputs: Value | None, **attrs: object) -> None:
        self.values.append(self.graph.add(op, inputs, attrs).output)  # type: ignore[arg-type]

    def step(self) -> None:
        x = self.draw(st.sampled_from(self.values[-3:]))
        kinds = ["unary", "scalar", "reshape", "clip", "binary", "transpose", "norm_pieces"]
        if x.type.rank == 4:
            kinds += ["conv", "conv", "depthwise", "batch_norm", "channel", "pool", "pad", "mean", "excite", "up"]
        if x.type.rank == 2:
            kinds += ["gemm", "matmul", "softmax_pieces"]
        getattr(self, self.draw(st.sampled_from(kinds)))(x)

    def unary(self, x: Value) -> None:
        self.add(self.draw(st.sampled_from(UNARY)), x)

    def clip(self, x: Value) -> None:
        low = self.draw(st.sampled_from([0.0, -np.inf, -1.0]))
        self.add("clip", x, lo=low, hi=self.draw(st.sampled_from([6.0, np.inf, 1.0])))

    def scalar(self, x: Value) -> None:
        op = self.draw(st.sampled_from(["add", "sub", "mul", "div", "maximum", "minimum"]))
        scalar = self.number()
        if scalar.type.rank > x.type.rank or (op == "div" and not scalar.array.all()):
            scalar = self.graph.constant(np.float32(2).reshape(()))
        first = self.draw(st.booleans()) and op != "div"
        self.add(op, *((scalar, x) if first else (x, scalar)))

    def binary(self, x: Value) -> None:
        same = [v for v in self.values if v.shape == x.shape]
        self.add(self.draw(st.sampled_from(["add", "mul", "sub"])), x, self.draw(st.sampled_from(same)))

    def channel(self, x: Value) -> None:
        constant = self.constant(x.shape[1], 1, 1)
        self.add(self.draw(st.sampled_from(["add", "mul", "sub"])), x, constant)

    def conv(self, x: Value) -> None:
        kernel = self.draw(st.sampled_from([1, 3]))
        out = self.draw(st.sampled_from([2, 4]))
        pad = self.draw(st.sampled_from([0, kernel // 2]))
        if min(x.shape[2:]) + 2 * pad < kernel:
            pad = 1
        bias = self.constant(out) if self.draw(st.booleans()) else None
        self.add("conv2d", x, self.constant(out, x.shape[1], kernel, kernel), bias, pads=(pad,) * 4)

    def depthwise(self, x: Value) -> None:
        self.add("conv2d", x, self.constant(x.shape[1], 1, 3, 3), None, pads=(1, 1, 1, 1), groups=x.shape[1])

    def up(self, x: Value) -> None:
        if max(x.shape[2:]) > 8:
            return
        self.add("conv_transpose2d", x, self.constant(x.shape[1], 2, 2, 2), self.constant(2), strides=(2, 2))

    def batch_norm(self, x: Value) -> None:
        c = x.shape[1]
        variance = self.graph.constant((self.rng.integers(1, 9, c) / 4).astype(np.float32))
        self.add("batch_norm", x, self.constant(c), self.constant(c), self.constant(c), variance)

    def pool(self, x: Value) -> None:
        op = self.draw(st.sampled_from(["avg_pool", "max_pool"]))
        if min(x.shape[2:]) >= 2:
            self.add(op, x, kernel=(2, 2), strides=self.draw(st.sampled_from([(1, 1), (2, 2)])))

    def pad(self, x: Value) -> None:
        if max(x.shape[2:]) <= 8:
            self.add("pad", x, pads=(0, 0, 1, 0, 0, 0, 1, 1))

    def mean(self, x: Value) -> None:
        self.add("reduce_mean", x, axes=(2, 3), keepdims=self.draw(st.booleans()))

    def excite(self, x: Value) -> None:
        c = x.shape[1]
        self.add("reduce_mean", x, axes=(2, 3), keepdims=False)
        self.add("gemm", self.values[-1], self.constant(c, 3), self.constant(3))
        self.add("relu", self.values[-1])
        self.add("gemm", self.values[-1], self.constant(c, 3), None, trans_b=True)
        self.add("hard_sigmoid", self.values[-1])
        self.add("reshape", self.values[-1], shape=(x.shape[0], c, 1, 1))
        self.add("mul", x, self.values[-1])

    def reshape(self, x: Value) -> None:
        flat = (x.shape[0], x.type.elements // x.shape[0])
        if flat[1] <= 512:
            self.add("reshape", x, shape=flat)

    def transpose(self, x: Value) -> None:
        perm = self.draw(st.permutations(range(x.type.rank)))
        if x.type.rank == 4:
            self.add("transpose", x, perm=tuple(perm))

    def gemm(self, x: Value) -> None:
        attrs = {"alpha": self.draw(st.sampled_from([1.0, 0.5])), "trans_b": self.draw(st.booleans())}
        shape = (3, x.shape[1]) if attrs["trans_b"] else (x.shape[1], 3)
        bias = self.draw(st.sampled_from([None, (3,), (1, 3), (1,)]))
        self.add("gemm", x, self.constant(*shape), None if bias is None else self.constant(*bias), **attrs)

    def matmul(self, x: Value) -> None:
        self.add("matmul", x, self.constant(x.shape[1], 3))
        if self.draw(st.booleans()):
            self.add("add", self.values[-1], self.constant(3))

    def norm_pieces(self, x: Value) -> None:
        axes = (x.type.rank - 1,)
        self.add("reduce_mean", x, axes=axes)
        self.add("sub", x, self.values[-1])
        centred = self.values[-1]
        self.add("mul", centred, centred)
        self.add("reduce_mean", self.values[-1], axes=axes)
        self.add("add", self.values[-1], self.graph.constant(np.asarray(0.125, np.float32)))
        self.add("sqrt", self.values[-1])
        self.add("div", centred, self.values[-1])

    def softmax_pieces(self, x: Value) -> None:
        self.add("reduce_max", x, axes=(1,))
        self.add("sub", x, self.values[-1])
        self.add("exp", self.values[-1])
        e = self.values[-1]
        self.add("reduce_sum", e, axes=(1,))
        self.add("div", e, self.values[-1])


@st.composite
def float_graphs(draw: st.DrawFn) -> Graph:
    builder = Builder(draw)
    for _ in range(draw(st.integers(1, 14))):
        builder.step()
    last = builder.values[-1]
    builder.graph.outputs = [last]
    extra = draw(st.sampled_from(builder.values))
    if extra is not last and extra.producer is not None:
        builder.graph.outputs.append(extra)
    if last.producer is None:
        builder.graph.outputs = [builder.graph.add("relu", [last]).output]
    verify(builder.graph)
    return builder.graph


GENERATED = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@GENERATED
@given(float_graphs())
def test_canonical_form_keeps_the_results(graph: Graph):
    check = Checker.random(graph, samples=2)
    result = run_passes(graph, canonicalization(), check=check)  # every pass within what it declares
    assert [(v.name, v.type) for v in result.outputs] == [(v.name, v.type) for v in graph.outputs]
    for inputs in check.inputs:
        before, after = run(graph, inputs), run(result, inputs)
        for name, expected in before.items():
            finite = np.isfinite(expected)
            scale = np.abs(expected[finite]).max(initial=1.0)
            assert np.abs(after[name] - expected)[finite].max(initial=0.0) <= 1e-4 * scale


@GENERATED
@given(float_graphs())
def test_canonical_form_is_a_fixed_point_and_deterministic(graph: Graph):
    first = canonicalize(graph)
    assert print_graph(canonicalize(graph)) == print_graph(first)
    assert print_graph(canonicalize(first)) == print_graph(first)


@GENERATED
@given(float_graphs(), st.sampled_from([0.25, 1.0, 30.0]))
def test_values_stay_inside_their_bounds(graph: Graph, reach: float):
    rng = np.random.default_rng(0)
    ranges = analyze_ranges(graph, {"x": Interval.of(-reach, reach)})
    shape = graph.inputs[0].shape
    samples = [rng.uniform(-reach, reach, shape), np.full(shape, reach), np.full(shape, -reach), np.zeros(shape),
               rng.choice([-reach, reach], shape)]

    def inside(value: Value, array: np.ndarray) -> None:
        bound = ranges[value]
        known = ~np.isnan(array)
        low, high = np.broadcast_to(bound.lo, array.shape), np.broadcast_to(bound.hi, array.shape)
        assert (low[known] <= array[known]).all() and (array[known] <= high[known]).all(), value

    for sample in samples:
        run(graph, {"x": sample.astype(np.float32)}, observe=inside)
