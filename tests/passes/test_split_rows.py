"""split-rows: bands of rows give the same bits, and the planner needs less memory for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcomp.bands import banded
from qcomp.codegen.c.lower import plan_of
from qcomp.errors import QcompError
from qcomp.ir import DType, Graph, Quantization, TensorType, Value, run, verify
from qcomp.passes.split_rows import SplitRows, rows_region
from qcomp.targets import target

QUANT = Quantization.per_tensor(0.5, 3)


def conv(graph: Graph, x: Value, rng: np.random.Generator, channels: int, taps: int, stride: int, dilation: int,
         residual: Value | None = None, groups: int = 1) -> Value:  # fmt: skip
    inner = x.shape[3] // groups
    span = dilation * (taps - 1)
    operands = [
        x, graph.constant(rng.integers(-127, 128, (channels, taps, taps, inner)).astype(np.int8)),
        graph.constant(rng.integers(-99, 99, channels).astype(np.int32)),
        graph.constant(rng.uniform(0.001, 0.01, channels).astype(np.float32)),
    ]  # fmt: skip
    attrs: dict[str, object] = {
        "strides": (stride, stride), "dilations": (dilation, dilation), "groups": groups, "zp": 3, "x_zp": 3,
        "pads": (span // 2, span // 2, span - span // 2, span - span // 2),
    }  # fmt: skip
    if residual is not None:
        attrs |= {"r_zp": 3, "r_mult": 0.5}
        return graph.add("qconv2d", [*operands, None, residual], attrs, quants=[QUANT]).output  # type: ignore[arg-type]
    return graph.add("qconv2d", operands, attrs, quants=[QUANT]).output  # type: ignore[arg-type]


def chain(seed: int, rows: int, layers: list[tuple[int, int, int]], joined: bool) -> tuple[Graph, str]:
    rng, graph = np.random.default_rng(seed), Graph("chain")
    x = graph.input("x", TensorType(DType.I8, (1, rows, 9, 3), QUANT))
    value = conv(graph, x, rng, 8, 3, 1, 1)
    for taps, stride, dilation in layers:
        before = value
        value = conv(graph, value, rng, 8, taps, stride, dilation)
        if joined and value.shape == before.shape:
            value = conv(graph, value, rng, 8, 3, 1, 1, residual=before)
    pool = {"kernel": (2, 2), "strides": (1, 1), "pads": (0, 1, 1, 0), "layout": "NHWC"}
    value = graph.add("max_pool", [value], pool, quants=[QUANT]).output
    last = conv(graph, value, rng, 5, 3, 1, 1)
    graph.outputs.append(last)
    verify(graph)
    return graph, value.name


LAYERS = st.lists(
    st.tuples(st.sampled_from([1, 2, 3, 5]), st.integers(1, 2), st.integers(1, 2)), min_size=0, max_size=3
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 99), st.integers(17, 31), LAYERS, st.booleans(), st.integers(2, 5))
def test_bands_give_the_same_bits(
    seed: int, rows: int, layers: list[tuple[int, int, int]], joined: bool, bands: int
) -> None:
    graph, until = chain(seed, rows, layers, joined)
    feeds = {"x": np.random.default_rng(seed).integers(-128, 128, (1, rows, 9, 3)).astype(np.int8)}
    expected = run(graph, feeds)
    split = SplitRows(until, bands).run(graph.clone())
    verify(split)
    assert sum(node.op.name == "concat" for node in split.nodes) == 1
    for name, array in run(split, feeds).items():
        assert np.array_equal(array, expected[name])


def test_the_planner_joins_bands_in_place_and_needs_less() -> None:
    graph, until = chain(1, 31, [(3, 2, 1), (1, 1, 1)], False)
    machine = target("cortex-m4")
    whole = plan_of(graph, machine)
    split = plan_of(SplitRows(until, 4).run(graph.clone()), machine)
    assert not any(step.node.op.name == "concat" for step in split.steps)
    assert split.arena_bytes < whole.arena_bytes
    found = banded(graph, machine, split.arena_bytes)
    assert found is not None and found.arena_bytes <= split.arena_bytes and found.work >= 1.0
    beyond = banded(graph, machine, 64)
    assert beyond is not None and 64 < beyond.arena_bytes < whole.arena_bytes
    assert banded(graph, target("generic"), 1 << 30) is None


def test_what_is_used_elsewhere_is_not_split() -> None:
    graph, until = chain(2, 17, [], False)
    first = next(node.output for node in graph.nodes if node.op.name == "qconv2d")
    assert rows_region(graph, graph.value(until)) is not None
    graph.outputs.append(first)
    assert rows_region(graph, graph.value(until)) is None
    with pytest.raises(QcompError, match="not everything that it is computed from works by rows"):
        SplitRows(until, 2).run(graph)


def test_a_constant_with_rows_is_not_split() -> None:
    graph, until = chain(3, 17, [], False)
    value = graph.value(until)
    term = graph.constant(np.zeros(value.shape, np.int8), quant=QUANT)
    added = graph.add("qadd", [value, term], {"a_mult": 1.0, "b_mult": 1.0}, quants=[QUANT]).output
    graph.outputs[0] = added
    assert rows_region(graph, value) is not None and rows_region(graph, added) is None
