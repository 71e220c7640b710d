"""The memory planner: nothing live overlaps, the bound holds, views and halos are what they should be."""

from __future__ import annotations

import pytest
from codegen_harness import PORTABLE, Cases, check
from hypothesis import given, settings
from hypothesis import strategies as st

from qcomp.codegen.c.kernel import Kernel
from qcomp.codegen.c.table import kernel_table
from qcomp.codegen.plan import MemoryPlan, make_plan
from qcomp.codegen.plan.buffer import Buffer
from qcomp.codegen.plan.legalize import legalize
from qcomp.codegen.plan.place import ALIGN, Overlap, Placement, Slot, check_placement, lower_bound, place
from qcomp.codegen.plan.schedule import live_bytes, schedule
from qcomp.codegen.plan.storage import Storages
from qcomp.errors import QcompError
from qcomp.ir import DType, Graph, Node, parse_graph
from qcomp.targets import target

SLOTS = st.lists(
    st.tuples(st.integers(1, 5000), st.integers(0, 20), st.integers(0, 6)), min_size=1, max_size=25
).map(lambda rows: [Slot(f"s{i}", size, first, first + span) for i, (size, first, span) in enumerate(rows)])


def plan_of(graph: Graph, name: str = "x86_64") -> MemoryPlan:
    machine = target(name)

    def kernel_of(node: Node) -> Kernel:
        return PORTABLE.select(node, machine)

    return make_plan(graph, kernel_of, converts_i8=machine.stored_offset != 0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SLOTS)
def test_a_placement_is_valid_and_not_below_the_bound(slots: list[Slot]) -> None:
    placement = place(slots)
    check_placement(slots, placement)
    bound, _ = lower_bound(slots)
    assert bound <= placement.bytes <= sum(s.size for s in slots)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(SLOTS)
def test_the_order_of_slots_does_not_matter(slots: list[Slot]) -> None:
    assert place(slots) == place(slots[::-1])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SLOTS, st.data())
def test_the_checker_finds_a_planted_overlap(slots: list[Slot], data: st.DataObject) -> None:
    slots = [*slots, Slot("victim", 640, 3, 5)]
    placement = place(slots)
    intruder = Slot("intruder", 64, data.draw(st.integers(3, 5)), 30)
    inside = placement.offsets["victim"] + ALIGN * data.draw(st.integers(0, 9))
    planted = Placement({**placement.offsets, "intruder": inside}, placement.bytes + 64)
    with pytest.raises(QcompError, match="overlap"):
        check_placement([*slots, intruder], planted)


def test_the_checker_rejects_misaligned_and_outside_buffers() -> None:
    slot = Slot("a", 100, 0, 1)
    for offset in (8, -64, 64):
        with pytest.raises(QcompError, match="outside the arena or misaligned"):
            check_placement([slot], Placement({"a": offset}, 128))


def test_the_bound_counts_what_lives_at_the_worst_step() -> None:
    slots = [Slot("a", 64, 0, 1), Slot("b", 128, 1, 2), Slot("c", 64, 2, 3)]
    assert lower_bound(slots) == (192, 1)


def test_elementwise_chains_run_in_place() -> None:
    cases = Cases()
    x = cases.i8((1, 4, 4, 16))
    table = cases.constant(cases.data((256,), DType.I8))
    graph = cases.graph
    for _ in range(3):
        x = graph.add("table", [x, table]).output
    graph.outputs = [x]
    plan = plan_of(graph)
    assert plan.arena_bytes - 64 == plan.lower_bound == 256


def test_reshapes_are_views_without_a_step() -> None:
    graph = parse_graph("""graph @g {
  input %x: f32[2,3,4]
  %a: f32[2,3,4] = exp(%x)
  %b: f32[6,4] = reshape(%a) {shape = [6, 4]}
  %c: f32[6,4] = exp(%b)
  %d: f32[24] = reshape(%c) {shape = [24]}
  output %d
}""")
    plan = plan_of(graph)
    assert [s.node.op.name for s in plan.steps] == ["exp", "exp"]
    assert plan.steps[1].outputs[0].kind == "output"


def test_pieces_of_an_outer_concat_are_written_in_place() -> None:
    graph = parse_graph("""graph @g {
  input %x: f32[1,2,16]
  %a: f32[1,2,16] = exp(%x)
  %b: f32[1,2,16] = tanh(%x)
  %c: f32[1,4,16] = concat(%a, %b) {axis = 1}
  %d: f32[1,4,16] = exp(%c)
  output %d
}""")
    plan = plan_of(graph)
    assert [s.node.op.name for s in plan.steps] == ["exp", "tanh", "exp"]
    assert [s.outputs[0].offset for s in plan.steps[:2]] == [0, 128]


def test_an_inner_concat_is_copied() -> None:
    graph = parse_graph("""graph @g {
  input %x: f32[2,2,16]
  %a: f32[2,2,16] = exp(%x)
  %b: f32[2,2,16] = tanh(%x)
  %c: f32[2,4,16] = concat(%a, %b) {axis = 1}
  output %c
}""")
    assert "concat" in [s.node.op.name for s in plan_of(graph).steps]


def test_an_output_that_is_used_again_is_copied_out() -> None:
    graph = parse_graph("""graph @g {
  input %x: f32[8]
  %a: f32[8] = exp(%x)
  %b: f32[8] = tanh(%a)
  output %a
  output %b
  output %a
  output %x
}""")
    plan = plan_of(graph)
    written = sorted(s.outputs[0].index for s in plan.steps if s.outputs[0].kind == "output")
    assert written == [0, 1, 2, 3]


def test_a_padded_buffer_has_the_strides_of_its_halo() -> None:
    buffer = Buffer(DType.I8, (2, 5, 6, 3), (1, 2, 3, 4))
    assert (buffer.row_stride, buffer.image_stride, buffer.interior) == (36, 324, 42)
    assert buffer.elements == 648
    assert buffer.strides == (324, 36, 3, 1)
    with pytest.raises(QcompError, match="not NHWC"):
        Buffer(DType.I8, (5, 6), (1, 0, 0, 0))


def _conv(cases: Cases, x: object, x_zp: int, label: str) -> object:
    weights = cases.constant(cases.rng.integers(-127, 128, (8, 3, 3, 8)).astype("int8"))
    bias = cases.constant(cases.rng.integers(-99, 99, 8).astype("int32"))
    mult = cases.constant((cases.rng.random(8) * 0.01).astype("float32"))
    return cases.op("qconv2d", [x, weights, bias, mult], label, pads=(1, 1, 1, 1), x_zp=x_zp)  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["x86_64", "generic"])
def test_users_that_want_different_padding_both_get_theirs(name: str) -> None:
    cases = Cases()
    x = cases.i8((1, 5, 5, 8), 3)
    _conv(cases, x, 3, "a")
    _conv(cases, x, -20, "b")
    plan = plan_of(cases.graph, name)
    fills = {f.value for step in plan.steps for f in step.fills}
    assert fills == {3, -20}
    check(cases, name)


@pytest.mark.parametrize("name", ["x86_64", "generic"])
def test_padded_buffers_meet_views_and_movement(name: str) -> None:
    """Reshape, concat, slice and pooling of values that a convolution wants padded."""
    cases = Cases(3)
    x = cases.i8((2, 6, 4, 8), -5)
    _conv(cases, x, -5, "first")
    cases.op("reshape", [x], shape=(2, 24, 8))
    back = cases.op("reshape", [x], shape=(2, 4, 6, 8))
    _conv(cases, back, 9, "second")
    both = cases.op("concat", [x, x], axis=3)
    half = cases.op("slice", [both], starts=(0, 0, 0, 0), ends=(2, 6, 4, 8), steps=(1, 1, 1, 1))
    _conv(cases, half, 0, "third")
    pooled = cases.op("max_pool", [x], kernel=(2, 2), pads=(1, 0, 0, 1), layout="NHWC")
    _conv(cases, pooled, 1, "fourth")
    raw = cases.input((2, 4, 4, 8), DType.I8)
    _conv(cases, raw, 2, "fifth")
    cases.op("transpose", [raw], perm=(0, 3, 1, 2))
    check(cases, name)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_the_schedule_is_no_worse_than_the_order_of_the_graph(seed: int) -> None:
    cases = Cases(seed)
    values = [cases.input((int(n),)) for n in cases.rng.integers(1, 2000, 3)]
    graph = cases.graph
    for _ in range(14):
        a = values[cases.rng.integers(len(values))]
        op = ("exp", "reduce_sum", "concat")[cases.rng.integers(3)]
        if op == "concat":
            b = values[cases.rng.integers(len(values))]
            values.append(graph.add(op, [a, b], {"axis": 0}).output)
        else:
            attrs = {"axes": (0,), "keepdims": True} if op == "reduce_sum" else {}
            values.append(graph.add(op, [a], attrs).output)
    graph.outputs = [v for v in values if not graph.users(v) and v.producer is not None]
    machine = target("generic")

    def kernel_of(node: Node) -> Kernel:
        return PORTABLE.select(node, machine)

    storages = Storages(legalize(graph, kernel_of, converts_i8=False), kernel_of)
    plain = [n for n in storages.graph.nodes if n not in storages.views]
    order = schedule(storages)
    assert max(live_bytes(order, storages)) <= max(live_bytes(plain, storages))
    position = {node: i for i, node in enumerate(order)}
    for node in order:
        for value in node.inputs:
            if value is not None and value.producer in position:
                assert position[value.producer] < position[node]


@pytest.mark.parametrize(("residual", "shares"), [("%q", True), ("%alias", False), ("%c", False)],
                         ids=["another tensor", "another name of the input", "the input"])  # fmt: skip
def test_a_residual_gives_its_memory_away_unless_it_is_the_input_too(residual: str, shares: bool) -> None:
    graph = parse_graph(
        f"""graph @r {{
          input %x: f32[1,4,4,64]
          const %w: i8[64,1,1,64] = {[i % 7 - 3 for i in range(64 * 64)]}
          const %b: i32[64] = {[0] * 64}
          const %m: f32[64] = {[0.03125] * 64}
          %q: i8[1,4,4,64] q(0.5, 0) = quantize(%x) {{quant = q(0.5, 0)}}
          %c: i8[1,4,4,64] q(0.5, 0) = qconv2d(%q, %w, %b, %m)
          %alias: i8[1,4,4,64] q(0.5, 0) = identity(%c)
          %y: i8[1,4,4,64] q(0.5, 0) = qconv2d(%c, %w, %b, %m, _, {residual}) {{r_mult = 0.5}}
          %z: i8[1,4,4,64] q(0.5, 0) = qconv2d(%y, %w, %b, %m)
          output %z
        }}"""
    )
    machine = target("x86_64-avx512vbmi")
    plan = make_plan(graph, lambda node: kernel_table().select(node, machine), converts_i8=True)
    (step,) = (s for s in plan.steps if s.node.output.name == "y")
    assert (step.outputs[0].offset in {operand.offset for operand in step.inputs}) == shares


@settings(max_examples=80, deadline=None, derandomize=True)
@given(SLOTS, st.data())
def test_results_that_may_lie_on_their_operands_are_placed_as_they_must(slots: list[Slot], data: st.DataObject) -> None:
    overlaps: list[Overlap] = []
    for slot in {slot.first: slot for slot in slots}.values():  # a step has one result
        operands = [s for s in slots if s.last == slot.first and s.first < slot.first]
        if operands:
            operand = data.draw(st.sampled_from(operands))
            overlaps.append(Overlap(slot.name, operand.name, ALIGN * data.draw(st.integers(-60, 20))))
    placement = place(slots, overlaps)
    check_placement(slots, placement, overlaps)
    bound, _ = lower_bound(slots, overlaps)
    assert bound <= placement.bytes <= sum(s.size for s in slots)


def test_a_result_that_starts_too_late_on_its_operand_is_found() -> None:
    slots = [Slot("x", 640, 0, 1), Slot("y", 640, 1, 2)]
    overlaps = [Overlap("y", "x", -128)]
    check_placement(slots, Placement({"x": 128, "y": 0}, 768), overlaps)
    for x in (64, 0):
        with pytest.raises(QcompError, match="overlap"):
            check_placement(slots, Placement({"x": x, "y": 0}, 768), overlaps)
    assert place(slots, overlaps).bytes == 768 == lower_bound(slots, overlaps)[0]
    assert place(slots).bytes == 1280
