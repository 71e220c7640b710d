"""Schedules are texts with one spelling, and none of them changes a result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_x86_conv import Case, check, conv_cases, conv_shape, depthwise_cases
from x86_harness import HERE

from qcomp.codegen.c.kernel import Buffer, KernelRequest, generated
from qcomp.codegen.c.table import kernel_table
from qcomp.codegen.c.vector.shapes import Requantization
from qcomp.codegen.c.x86.conv import conv_code
from qcomp.codegen.c.x86.isa import AVX2, AVX2_PAIRS, AVX512_VBMI, ISAS
from qcomp.codegen.c.x86.schedule import BY_MODEL, Schedule, parse_schedule
from qcomp.codegen.c.x86.search import conv_schedules, depthwise_schedules, products_form
from qcomp.errors import QcompError
from qcomp.ir import DType, Graph, TensorType
from qcomp.targets import target

needs_cpu = pytest.mark.skipif(not HERE, reason="needs AVX2")
PICKS = st.integers(0, 2**16)
COUNTS = st.integers(1, 40)
RUNS = st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=4).map(tuple)


def some(strategy: st.SearchStrategy) -> st.SearchStrategy:  # type: ignore[type-arg]
    return st.none() | strategy


@given(
    st.builds(
        Schedule,
        form=some(st.sampled_from(["row", "any", "dense"])),
        tiles=some(st.just("amx")),
        vectors=st.just(()) | RUNS,
        rows=st.lists(RUNS, max_size=3).map(tuple),
        line=some(COUNTS),
        first=some(st.sampled_from(["lines", "tiles"])),
        tasks=some(COUNTS),
        passes=some(COUNTS),
        prefetch=some(st.booleans()),
    )
)
def test_a_schedule_is_what_its_text_says(schedule: Schedule) -> None:
    assert parse_schedule(schedule.text) == schedule


@pytest.mark.parametrize("text", [
    " ", "vectors", "vectors=", "vectors=4*1", "vectors=04", "vectors=4,3", "rows=6+", "vectors=4  rows=6",
    "rows=6 vectors=4", "line=0", "first=both", "prefetch=1", "form=dense ", " form=row", "tasks=8 tasks=8",
    "unroll=4", "vectors=4\n", "tiles=vnni", "first=lines tiles=amx",
])  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(QcompError, match="is no schedule"):
        parse_schedule(text)


@pytest.mark.parametrize(("text", "why"), [
    ("vectors=4*2", "its channels take 4 vectors"),
    ("vectors=3+1 rows=14,7", "14 pixels"),
    ("vectors=1+3", "its channels take 4 vectors"),
    ("vectors=5", "in tiles of 4, 3, 2, 1"),
    ("vectors=4 rows=6*2", "14 pixels"),
    ("vectors=4 rows=7*2", "in tiles of 6, 5, 4, 3, 2, 1"),
    ("vectors=4 rows=6*2+2,2*7", "tiles of 4 vectors"),
    ("line=14", "rows of an image"),
    ("tiles=amx", "a vector kernel has no tile registers"),
])  # fmt: skip
def test_a_schedule_that_does_not_fit_the_layer_is_refused(text: str, why: str) -> None:
    shape = conv_shape(1, (16, 16), 8, 64, (3, 3))
    arrays = np.ones((64, 3, 3, 8), np.int8), np.zeros(64, np.int32), np.ones(64, np.float32)
    with pytest.raises(QcompError, match=why):
        conv_code(shape, *arrays, Requantization(128), AVX512_VBMI, "k", parse_schedule(text))


def test_lines_must_divide_the_pixels() -> None:
    shape = conv_shape(1, (7, 7), 8, 64, (1, 1))
    arrays = np.ones((64, 1, 1, 8), np.int8), np.zeros(64, np.int32), np.ones(64, np.float32)
    conv_code(shape, *arrays, Requantization(128), AVX512_VBMI, "k", parse_schedule("line=7"))
    with pytest.raises(QcompError, match="49 pixels are no lines of 14"):
        conv_code(shape, *arrays, Requantization(128), AVX512_VBMI, "k", parse_schedule("line=14"))


@st.composite
def scheduled(draw: st.DrawFn, cases: st.SearchStrategy[Case]) -> Case:
    return replace(draw(cases), pick=draw(PICKS))


SETTINGS = settings(
    max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


@needs_cpu
@SETTINGS
@given(st.lists(scheduled(conv_cases()), min_size=16, max_size=16), st.sampled_from(HERE))
def test_convolutions_do_not_depend_on_the_schedule(cases: list[Case], isa) -> None:  # type: ignore[no-untyped-def]
    check(cases, isa)


@needs_cpu
@SETTINGS
@given(st.lists(scheduled(depthwise_cases()), min_size=16, max_size=16), st.sampled_from(HERE))
def test_depthwise_convolutions_do_not_depend_on_the_schedule(cases, isa) -> None:  # type: ignore[no-untyped-def]
    check(cases, isa)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name + ("-vbmi" if isa.vbmi else ""))
def test_every_listed_schedule_fits(isa) -> None:  # type: ignore[no-untyped-def]
    weights, bias, mult = np.ones((80, 1, 1, 16), np.int8), np.zeros(80, np.int32), np.ones(80, np.float32)
    shape = conv_shape(1, (6, 10), 16, 80, (1, 1))
    schedules = conv_schedules(shape, weights, isa)
    assert schedules[0] == "" and len(set(schedules)) == len(schedules) > 100
    texts = {
        conv_code(shape, weights, bias, mult, Requantization(128), isa, "k", parse_schedule(s)).text for s in schedules
    }
    assert len(texts) > 20


def test_a_depthwise_layer_has_all_forms() -> None:
    shape = conv_shape(1, (8, 8), 32, 32, (3, 3), groups=32)
    schedules = depthwise_schedules(shape)
    assert schedules[0] == "" and {parse_schedule(s).form for s in schedules} == {None, "row", "any", "dense"}
    dilated = conv_shape(1, (8, 8), 32, 32, (3, 3), dilations=(2, 2), groups=32)
    listed = depthwise_schedules(dilated)
    assert {parse_schedule(s).form for s in listed} == {None, "any", "dense"}


def test_the_form_says_whether_pairs_fit() -> None:
    shape = conv_shape(1, (4, 4), 8, 16, (1, 1))
    small, large = np.full((16, 1, 1, 8), 3, np.int8), np.full((16, 1, 1, 8), 127, np.int8)
    assert products_form(shape, small, AVX2) == AVX2_PAIRS.dot.name
    assert products_form(shape, large, AVX2) == AVX2.dot.name
    assert {products_form(shape, w, AVX512_VBMI) for w in (small, large)} == {AVX512_VBMI.dot.name}


def test_kernels_without_schedules_refuse_every_one() -> None:
    graph = Graph("g")
    x = graph.input("x", TensorType(DType.I8, (1, 4, 4, 8)))
    node = graph.add("max_pool", [x], {"kernel": (2, 2), "layout": "NHWC"})
    machine = target("x86_64-avx512vbmi")
    kernel = kernel_table().select(node, machine)
    buffers = (Buffer(DType.I8, x.shape),), (Buffer(DType.I8, node.output.shape),)
    assert kernel.schedules(KernelRequest(node, *buffers, machine, "k")) == ("",)
    generated(kernel, KernelRequest(node, *buffers, machine, "k"))
    with pytest.raises(QcompError, match="has no schedule 'line=2'"):
        generated(kernel, KernelRequest(node, *buffers, machine, "k", "line=2"))


def test_the_cost_models_choice_has_no_words() -> None:
    assert (BY_MODEL.text, parse_schedule("")) == ("", BY_MODEL)
