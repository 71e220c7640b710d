"""Values of the integer graph find their float tensors, and their errors are those worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.errors import QcompError
from qcomp.ir import parse_graph
from qcomp.ir.interpreter import run
from qcomp.reports.compare.counterparts import counterpart, float_name, layouts
from qcomp.reports.compare.distribution import Counter
from qcomp.reports.compare.graph_drawing import BOX_HEIGHT, BOX_WIDTH, draw_graph
from qcomp.reports.compare.layers import EXACT_DB, study_layers

FLOAT = parse_graph("""graph @m {
  input %x: f32[1,2]
  const %two: f32[] = [2.0]
  %y: f32[1,2] = mul(%x, %two)
  output %y
}""")
# the grid of x has steps of 1, that of y steps of 4
INTEGER = parse_graph("""graph @m {
  input %x: f32[1,2]
  %x.q.i: i8[1,2] q(1.0, 0) = quantize(%x) {quant = q(1.0, 0)}
  const %one: i8[] q(2.0, 0) = [1]
  %y.q.i: i8[1,2] q(4.0, 0) = qmul(%x.q.i, %one) {a_zp = 0, b_zp = 0, mult = 0.5, zp = 0}
  %y: f32[1,2] = dequantize(%y.q.i)
  output %y
}""")


@pytest.mark.parametrize(
    ("name", "found"),
    [("relu.q.nhwc.i", "relu"), ("relu.q.nhwc.1.i", "relu"), ("a.1.q.pre.i", "a.1"), ("a.i", "a.i"), ("b.i", None)],
)
def test_names_lose_what_passes_appended(name: str, found: str | None) -> None:
    assert float_name(name, {"relu", "a.1", "a.i"}.__contains__) == found


def test_layouts_reorder_axes_and_leave_out_ones() -> None:
    array = np.arange(24).reshape(1, 2, 3, 4)
    (way,) = layouts((1, 2, 3, 4), (1, 3, 4, 2))
    assert np.array_equal(way.apply(array), array.transpose(0, 2, 3, 1))
    (rows,) = layouts((1, 2, 3, 4), (2, 3, 4))
    assert np.array_equal(rows.apply(array), array[0])
    assert layouts((2, 6), (3, 4)) == () and layouts((2, 6), (6, 3)) == ()
    assert len(layouts((1, 5, 5, 3), (1, 3, 5, 5))) == 2


def test_of_two_layouts_the_closer_one_is_taken() -> None:
    value = parse_graph("graph @m {\n  input %a.nhwc: f32[1,3,3]\n  output %a.nhwc\n}").inputs[0]
    found = counterpart(value, {"a": (1, 3, 3)}.get)
    assert found is not None
    zeros = np.zeros((1, 3, 3))
    assert np.array_equal(found.aligned(zeros, zeros), zeros)  # decides nothing
    array = np.arange(9.0).reshape(1, 3, 3)
    moved = array.transpose(0, 2, 1)
    assert np.array_equal(found.aligned(array, moved + 0.1), moved)
    assert np.array_equal(found.aligned(array, array), moved)  # decided once


def test_accumulated_and_isolated_errors_of_a_small_network() -> None:
    x = np.asarray([[3.4, 8.0]], np.float32)
    # quantized: 3, 8; doubled 6, 16 in steps of 4: round(1.5) = 2 -> 8, 16 (half to even); float: 6.8, 16
    outputs = run(INTEGER, {"x": x})
    assert outputs["y"].tolist() == [[8.0, 16.0]]
    study = study_layers(FLOAT, INTEGER, [{"x": x}], [outputs], "graph.qir")
    by_op = {layer.op: layer for layer in study.layers}
    signal_x, signal_y = float(np.float32(3.4)) ** 2 + 64, float(np.float32(6.8)) ** 2 + 256
    noise_x, noise_y = (float(np.float32(3.4)) - 3) ** 2, (8 - float(np.float32(6.8))) ** 2
    assert by_op["quantize"].accumulated_db == pytest.approx(10 * np.log10(signal_x / noise_x), abs=1e-9)
    assert by_op["qmul"].accumulated_db == pytest.approx(10 * np.log10(signal_y / noise_y), abs=1e-9)
    assert by_op["qmul"].isolated_db == by_op["qmul"].accumulated_db  # its operand is the quantized input either way
    assert by_op["dequantize"].accumulated_db == by_op["qmul"].accumulated_db
    assert study.samples == 1 and by_op["qmul"].reference == "y"


def test_a_step_alone_starts_from_the_models_tensors_on_its_operands_grids() -> None:
    float_graph = parse_graph("""graph @m {
      input %x: f32[1]
      const %two: f32[] = [2.0]
      %y: f32[1] = mul(%x, %two)
      %z: f32[1] = mul(%y, %two)
      output %z
    }""")
    integer = parse_graph("""graph @m {
      input %x: f32[1]
      %x.q.i: i8[1] q(1.0, 0) = quantize(%x) {quant = q(1.0, 0)}
      const %one: i8[] q(2.0, 0) = [1]
      %y.q.i: i8[1] q(4.0, 0) = qmul(%x.q.i, %one) {a_zp = 0, b_zp = 0, mult = 0.5, zp = 0}
      %z.q.i: i8[1] q(4.0, 0) = qmul(%y.q.i, %one) {a_zp = 0, b_zp = 0, mult = 2.0, zp = 0}
      %z: f32[1] = dequantize(%z.q.i)
      output %z
    }""")
    x = np.asarray([1.5 - 2**-8], np.float32)  # exact in float32, as are its multiples
    # integers: x 1, y round(0.5) = 0, z 0; alone: y = 2.99 -> 1 step of 4, doubled: 2 steps, 8
    study = study_layers(float_graph, integer, [{"x": x}], [run(integer, {"x": x})], "graph.qir")
    z = 4 * float(x[0])
    last = study.layers[2]
    assert last.accumulated_db == 0.0  # nothing is left of it
    assert last.isolated_db == pytest.approx(10 * np.log10(z**2 / (8 - z) ** 2))


def test_a_step_alone_does_not_have_the_errors_before_it() -> None:
    float_graph = parse_graph("""graph @m {
      input %x: f32[4]
      %a: f32[4] = relu(%x)
      %y: f32[4] = neg(%a)
      output %y
    }""")
    integer = parse_graph("""graph @m {
      input %x: f32[4]
      %x.q.i: i8[4] q(1.0, 0) = quantize(%x) {quant = q(1.0, 0)}
      %a: f32[4] = dequantize(%x.q.i)
      %y: f32[4] = neg(%a)
      output %y
    }""")
    x = np.asarray([0.4, 1.4, 2.4, 3.4], np.float32)
    study = study_layers(float_graph, integer, [{"x": x}], [run(integer, {"x": x})], "graph.qir")
    last = study.layers[-1]
    assert last.isolated_db == EXACT_DB
    assert last.accumulated_db is not None and last.accumulated_db < 25


def test_movement_that_passes_made_does_not_hide_what_follows() -> None:
    float_graph = parse_graph("""graph @m {
      input %x: f32[2,2]
      %y: f32[2,2] = neg(%x)
      output %y
    }""")
    integer = parse_graph("""graph @m {
      input %x: f32[2,2]
      %made: f32[4] = reshape(%x) {shape = [4]}
      %again: f32[2,2] = reshape(%made) {shape = [2, 2]}
      %y: f32[2,2] = neg(%again)
      output %y
    }""")
    x = np.asarray([[1, 2], [3, 4]], np.float32)
    study = study_layers(float_graph, integer, [{"x": x}], [run(integer, {"x": x})], "graph.qir")
    assert [layer.reference for layer in study.layers] == ["", "", "y"]
    assert study.layers[-1].isolated_db == EXACT_DB


def test_another_models_graph_is_refused() -> None:
    x = np.asarray([[3.4, 8.0]], np.float32)
    with pytest.raises(QcompError, match="other.qir: this is not the artifact's graph"):
        study_layers(FLOAT, INTEGER, [{"x": x}], [{"y": np.asarray([[8.0, 20.0]], np.float32)}], "other.qir")


def test_a_distribution_counts_what_is_clipped() -> None:
    counter = Counter(-128.0, 127.0, 1.0)
    counter.add(np.asarray([0.0, 64.0, 127.4, 128.0, 1000.0, -np.inf, np.nan]))
    found = counter.distribution
    assert found is not None
    assert (sum(found.counts), found.clipped, found.seen_lo, found.seen_hi) == (5, 0.4, 0.0, 1000.0)
    assert found.counts[-1] == 1 and found.used == 127 / 255


LADDER = [(i, i + 1) for i in range(59)] + [(i, i + 3) for i in range(0, 56, 4)]
WIDE = [(0, i) for i in range(1, 9)] + [(i, i + 8) for i in range(1, 33)]


@pytest.mark.parametrize("edges", [[(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 5), (4, 5), (0, 5)], LADDER, WIDE, []])
def test_boxes_do_not_overlap(edges: list[tuple[int, int]]) -> None:
    count = 1 + max((b for _, b in edges), default=0)
    drawing = draw_graph(count, edges)
    assert [box.node for box in drawing.boxes] == list(range(count)) and len(drawing.edges) == len(edges)
    for a in drawing.boxes:
        assert 0 <= a.x <= drawing.width - BOX_WIDTH and 0 <= a.y <= drawing.height - BOX_HEIGHT
        for b in drawing.boxes:
            assert a is b or abs(a.x - b.x) >= BOX_WIDTH or abs(a.y - b.y) >= BOX_HEIGHT


def test_edges_lead_down_in_one_column() -> None:
    edges = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 5), (4, 5), (0, 5)]
    boxes = draw_graph(6, edges).boxes
    assert all(boxes[a].y < boxes[b].y for a, b in edges)


def test_a_long_chain_stands_upright_in_columns_of_a_page() -> None:
    drawing = draw_graph(60, LADDER)
    assert drawing.width <= 1060
    columns = [[box.x for box in drawing.boxes[start : start + 10]] for start in (0, 48)]
    assert all(max(column) - min(column) < BOX_WIDTH / 4 for column in columns)
    assert drawing.boxes[59].x - drawing.boxes[0].x > 2 * BOX_WIDTH  # several columns
    assert drawing.height < 60 * BOX_HEIGHT
