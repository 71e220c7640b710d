"""Quantization passes: text before, text after."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from qcomp.compiler import quantize
from qcomp.errors import QcompError
from qcomp.ir import Graph, parse_graph, print_graph, run
from qcomp.passes.insert_fake_quant import InsertFakeQuant
from qcomp.passes.manager import run_passes
from qcomp.passes.quantization_plan import plan_quantization
from qcomp.passes.registry import parse_pipeline

Rewritten = Callable[..., Graph]

CASES = [
    (
        "channels-last",
        """graph @m {
  input %x: f32[1,2,4,4]
  const %w: f32[1,2,1,1] = [1.0, -2.0]
  %y: f32[1,1,4,4] = conv2d(%x, %w)
  output %y
}""",
        """graph @m {
  input %x: f32[1,2,4,4]
  const %w: f32[1,2,1,1] = [1.0, -2.0]
  %x.nhwc: f32[1,4,4,2] = transpose(%x) {perm = [0, 2, 3, 1]}
  %y.nhwc: f32[1,4,4,1] = conv2d(%x.nhwc, %w) {layout = "NHWC"} @"y"
  %y: f32[1,1,4,4] = transpose(%y.nhwc) {perm = [0, 3, 1, 2]} @"y.1"
  output %y
}""",
    ),
    (
        "sink-transposes",
        """graph @m {
  input %x: f32[1,4,4,2]
  const %c: f32[1,2,1,1] = [1.0, 2.0]
  %t: f32[1,2,4,4] = transpose(%x) {perm = [0, 3, 1, 2]}
  %r: f32[1,2,4,4] = relu(%t)
  %a: f32[1,2,4,4] = add(%r, %c)
  %y: f32[1,4,4,2] = transpose(%a) {perm = [0, 2, 3, 1]}
  output %y
}""",
        """graph @m {
  input %x: f32[1,4,4,2]
  const %c.1: f32[1,1,1,2] = [1.0, 2.0]
  %r.pre: f32[1,4,4,2] = relu(%x) @"r"
  %y: f32[1,4,4,2] = add(%r.pre, %c.1) @"a"
  output %y
}""",
    ),
    (
        "sink-transposes",
        """graph @m {
  input %x: f32[1,4,5,2]
  %t: f32[1,2,4,5] = transpose(%x) {perm = [0, 3, 1, 2]}
  %r: f32[1,2,20] = reshape(%t) {shape = [1, 2, 20]}
  %y: f32[1,20,2] = transpose(%r) {perm = [0, 2, 1]}
  output %y
}""",
        """graph @m {
  input %x: f32[1,4,5,2]
  %y: f32[1,20,2] = reshape(%x) {shape = [1, 20, 2]} @"reshape"
  output %y
}""",
    ),
    (
        "sink-transposes",
        """graph @m {
  input %x: f32[1,4,4,2]
  input %z: f32[1,4,4,3]
  %t: f32[1,2,4,4] = transpose(%x) {perm = [0, 3, 1, 2]}
  %u: f32[1,3,4,4] = transpose(%z) {perm = [0, 3, 1, 2]}
  %c: f32[1,5,4,4] = concat(%t, %u) {axis = 1}
  %s: f32[1,2,4,4] = slice(%c) {starts = [0, 1, 0, 0], ends = [1, 3, 4, 4], steps = [1, 1, 1, 1]}
  %y: f32[1,2] = reduce_mean(%s) {axes = [2, 3], keepdims = false}
  output %y
}""",
        """graph @m {
  input %x: f32[1,4,4,2]
  input %z: f32[1,4,4,3]
  %c.pre: f32[1,4,4,5] = concat(%x, %z) {axis = 3} @"c"
  %s.pre: f32[1,4,4,2] = slice(%c.pre) {starts = [0, 0, 0, 1], ends = [1, 4, 4, 3], steps = [1, 1, 1, 1]} @"s"
  %y: f32[1,2] = reduce_mean(%s.pre) {axes = [1, 2], keepdims = false}
  output %y
}""",
    ),
    (
        "sink-transposes",
        """graph @m {
  input %x: f32[1,1,1,6]
  %t: f32[1,6,1,1] = transpose(%x) {perm = [0, 3, 1, 2]}
  %y: f32[1,6] = reshape(%t) {shape = [1, 6]}
  output %y
}""",
        """graph @m {
  input %x: f32[1,1,1,6]
  %y: f32[1,6] = reshape(%x) {shape = [1, 6]} @"y.1"
  output %y
}""",
    ),
    (
        "fold-fake-quant",
        """graph @m {
  input %x: f32[2,2]
  %a: f32[2,2] = fake_quant(%x) {quant = q(0.5, 0)}
  %b: f32[4] = reshape(%a) {shape = [4]}
  %c: f32[4] = fake_quant(%b) {quant = q(0.5, 0)}
  output %c
}""",
        """graph @m {
  input %x: f32[2,2]
  %a.i: i8[2,2] q(0.5, 0) = quantize(%x) {quant = q(0.5, 0)}
  %c.i: i8[4] q(0.5, 0) = reshape(%a.i) {shape = [4]} @"b"
  %c: f32[4] = dequantize(%c.i) @"c.1"
  output %c
}""",
    ),
    (
        "fold-fake-quant",
        """graph @m {
  input %x: f32[2]
  const %w: f32[2] = [0.5, -1.25]
  %wq: f32[2] = fake_quant(%w) {quant = q(0.25, 0)}
  %y: f32[2] = add(%x, %wq)
  output %y
}""",
        """graph @m {
  input %x: f32[2]
  const %w.1: i8[2] q(0.25, 0) = [2, -5]
  %wq: f32[2] = dequantize(%w.1) @"wq.1"
  %y: f32[2] = add(%x, %wq)
  output %y
}""",
    ),
    (
        "fold-fake-quant",
        """graph @m {
  input %x: f32[2,3]
  input %z: f32[2,3]
  %r: f32[2,3] = relu(%x)
  %s: f32[2,3] = relu(%z)
  %c: f32[4,3] = concat(%r, %s) {axis = 0}
  %y: f32[4,3] = fake_quant(%c) {quant = q(0.25, -128)}
  output %y
}""",
        """graph @m {
  input %x: f32[2,3]
  input %z: f32[2,3]
  %r: f32[2,3] = relu(%x)
  %s: f32[2,3] = relu(%z)
  %r.i: i8[2,3] q(0.25, -128) = quantize(%r) {quant = q(0.25, -128)}
  %s.i: i8[2,3] q(0.25, -128) = quantize(%s) {quant = q(0.25, -128)}
  %y.i: i8[4,3] q(0.25, -128) = concat(%r.i, %s.i) {axis = 0} @"c"
  %y: f32[4,3] = dequantize(%y.i) @"y.1"
  output %y
}""",
    ),
    (
        "fold-fake-quant",
        """graph @m {
  input %x: f32[1,3]
  const %k: f32[1,3] = [1.0, 2.0, 3.1]
  %r: f32[1,3] = relu(%x)
  %c: f32[2,3] = concat(%r, %k) {axis = 0}
  %y: f32[2,3] = fake_quant(%c) {quant = q(0.25, 0)}
  output %y
}""",
        """graph @m {
  input %x: f32[1,3]
  const %k.1: i8[1,3] q(0.25, 0) = [4, 8, 12]
  %r: f32[1,3] = relu(%x)
  %r.i: i8[1,3] q(0.25, 0) = quantize(%r) {quant = q(0.25, 0)}
  %y.i: i8[2,3] q(0.25, 0) = concat(%r.i, %k.1) {axis = 0} @"c"
  %y: f32[2,3] = dequantize(%y.i) @"y.1"
  output %y
}""",
    ),
    (
        "fuse-requantize",
        """graph @m {
  input %x: i8[1,2,2,2] q(0.5, 1)
  const %w: i8[1,2,1,1] q(0.25, 0) = [3, -4]
  const %b: f32[1] = [0.5]
  %xr: f32[1,2,2,2] = dequantize(%x)
  %wr: f32[1,2,1,1] = dequantize(%w)
  %c: f32[1,2,2,1] = conv2d(%xr, %wr, %b) {layout = "NHWC"}
  %r: f32[1,2,2,1] = relu(%c)
  %y: i8[1,2,2,1] q(0.5, -128) = quantize(%r) {quant = q(0.5, -128)}
  output %y
}""",
        """graph @m {
  input %x: i8[1,2,2,2] q(0.5, 1)
  const %wr.w: i8[1,1,1,2] q([0.25], [], axis=0) = [3, -4]
  const %c.bias: i32[1] = [4]
  const %c.mult: f32[1] = [0.25]
  %y: i8[1,2,2,1] q(0.5, -128) = qconv2d(%x, %wr.w, %c.bias, %c.mult) {bounded = true, x_zp = 1, zp = -128} @"c"
  output %y
}""",
    ),
    (
        "fuse-requantize",
        """graph @m {
  input %x: i8[1,2] q(0.5, 1)
  const %w: i8[3,2] q([0.25, 0.5, 1.0], [], axis=0) = [3, -4, 1, 2, 0, 1]
  %xr: f32[1,2] = dequantize(%x)
  %wr: f32[3,2] = dequantize(%w)
  %y: f32[1,3] = gemm(%xr, %wr) {trans_b = true}
  output %y
}""",
        """graph @m {
  input %x: i8[1,2] q(0.5, 1)
  const %wr.w: i8[3,2] q([0.25, 0.5, 1.0], [], axis=0) = [3, -4, 1, 2, 0, 1]
  const %y.bias: i32[3] = [0, 0, 0]
  const %y.mult: f32[3] = [0.125, 0.25, 0.5]
  %y: f32[1,3] = qgemm(%x, %wr.w, %y.bias, %y.mult) {x_zp = 1, dtype = !f32}
  output %y
}""",
    ),
    (
        "fuse-requantize",
        """graph @m {
  input %x: i8[1,2] q(0.5, 1)
  const %w: i8[2,2] q([0.25, 0.5], [-5, 7], axis=0) = [120, -4, 1, -2]
  %xr: f32[1,2] = dequantize(%x)
  %wr: f32[2,2] = dequantize(%w)
  %y: f32[1,2] = gemm(%xr, %wr) {alpha = 0.5, trans_b = true}
  output %y
}""",
        """graph @m {
  input %x: i8[1,2] q(0.5, 1)
  const %wr.w: i8[2,2] q([0.125, 0.25], [], axis=0) = [125, 1, -6, -9]
  const %y.bias: i32[2] = [0, 0]
  const %y.mult: f32[2] = [0.0625, 0.125]
  %y: f32[1,2] = qgemm(%x, %wr.w, %y.bias, %y.mult) {x_zp = 1, dtype = !f32}
  output %y
}""",
    ),
    (
        "fuse-requantize",
        """graph @m {
  input %a: i8[4] q(0.5, 1)
  input %b: i8[4] q(0.25, 0)
  %ar: f32[4] = dequantize(%a)
  %br: f32[4] = dequantize(%b)
  %s: f32[4] = sub(%ar, %br)
  %y: i8[4] q(0.5, 0) = quantize(%s) {quant = q(0.5, 0)}
  output %y
}""",
        """graph @m {
  input %a: i8[4] q(0.5, 1)
  input %b: i8[4] q(0.25, 0)
  %y: i8[4] q(0.5, 0) = qadd(%a, %b) {a_zp = 1, a_mult = 1.0, b_mult = -0.5} @"s"
  output %y
}""",
    ),
    (
        "fuse-requantize",
        """graph @m {
  input %x: i8[1,4] q(0.5, 1)
  %xr: f32[1,4] = dequantize(%x)
  %s: f32[1,4] = log_softmax(%xr) {axis = 1}
  %y: i8[1,4] q(0.00390625, -128) = quantize(%s) {quant = q(0.00390625, -128)}
  output %y
}""",
        """graph @m {
  input %x: i8[1,4] q(0.5, 1)
  %xr: f32[1,4] = dequantize(%x)
  %s: f32[1,4] = log_softmax(%xr) {axis = 1}
  %y: i8[1,4] q(0.00390625, -128) = quantize(%s) {quant = q(0.00390625, -128)}
  output %y
}""",
    ),
]


@pytest.mark.parametrize(("name", "before", "after"), CASES)
def test_pass_rewrites(rewritten: Rewritten, name: str, before: str, after: str) -> None:
    (step,) = parse_pipeline(name)
    rewritten(step, before, after)


def _ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


def test_a_chain_of_functions_becomes_one_table() -> None:
    text = """graph @m {
      input %x: i8[256] q(0.5, 1)
      const %two: f32[] = [2.0]
      %xr: f32[256] = dequantize(%x)
      %h: f32[256] = hard_swish(%xr)
      %m: f32[256] = mul(%h, %two)
      %y: i8[256] q(0.5, 0) = quantize(%m) {quant = q(0.5, 0)}
      output %y
    }"""
    graph = parse_graph(text)
    fused = run_passes(graph, parse_pipeline("fuse-requantize"))
    assert _ops(fused) == ["table"]
    every = {"x": np.arange(-128, 128).astype(np.int8)}
    assert np.array_equal(run(graph, every)["y"], run(fused, every)["y"])


def test_requantization_between_grids_is_a_table() -> None:
    text = """graph @m {
      input %x: f32[1000]
      %a: f32[1000] = fake_quant(%x) {quant = q(0.5, 0)}
      %c: f32[1000] = fake_quant(%a) {quant = q(0.25, 3)}
      output %c
    }"""
    graph = parse_graph(text)
    folded = run_passes(graph, parse_pipeline("fold-fake-quant"))
    assert _ops(folded) == ["quantize", "table", "dequantize"]
    x = {"x": np.linspace(-100, 100, 1000, dtype=np.float32)}
    assert np.array_equal(run(graph, x)["c"], run(folded, x)["c"])


def test_tables_compose_and_join_their_producer() -> None:
    entries = ", ".join(str(-i - 1) for i in range(-128, 128))
    text = f"""graph @m {{
      input %a: i8[256] q(0.5, 1)
      input %b: i8[256] q(0.25, 0)
      const %t: i8[256] = [{entries}]
      const %u: i8[256] = [{", ".join(str(max(i, 5)) for i in range(-128, 128))}]
      %s: i8[256] q(0.5, 0) = qadd(%a, %b) {{a_mult = 1.0, b_mult = 0.5}}
      %m: i8[256] q(0.5, 0) = table(%s, %t)
      %y: i8[256] q(0.5, 0) = table(%m, %u)
      output %y
    }}"""
    graph = parse_graph(text)
    fused = run_passes(graph, parse_pipeline("fuse-tables"))
    assert _ops(fused) == ["qadd"]
    rng = np.random.default_rng(0)
    x = {name: rng.integers(-128, 128, 256).astype(np.int8) for name in "ab"}
    assert np.array_equal(run(graph, x)["y"], run(fused, x)["y"])


NETWORK = """graph @m {
  input %x: f32[1,2,4,4]
  const %w: f32[2,2,1,1] = [1.0, -2.0, 0.5, 0.25]
  const %v: f32[2,2,1,1] = [1.0, -2.0, 0.5, 0.25]
  %c: f32[1,2,4,4] = conv2d(%x, %w)
  %r: f32[1,2,4,4] = relu(%c)
  %d: f32[1,2,4,4] = conv2d(%r, %v)
  %h: f32[1,2,4,4] = hard_swish(%d)
  %a: f32[1,2,4,4] = add(%h, %r)
  %t: f32[1,4,4,4] = concat(%a, %r) {axis = 1}
  output %t
}"""


def test_points_skip_what_a_clamp_or_table_absorbs() -> None:
    plan = plan_quantization(parse_graph(NETWORK))
    # c is clamped by its relu; what leads only to the float output stays float
    assert [v.name for v in plan.points] == ["x", "r"]


def test_fake_quant_goes_on_points_and_ties_concat_operands() -> None:
    graph = parse_graph(
        """graph @m {
      input %x: f32[1,1,4,4]
      const %w: f32[1,1,1,1] = [1.0]
      const %v: f32[1,2,1,1] = [1.0, 2.0]
      %c: f32[1,1,4,4] = conv2d(%x, %w)
      %d: f32[1,1,4,4] = conv2d(%x, %w)
      %t: f32[1,2,4,4] = concat(%c, %d) {axis = 1}
      %y: f32[1,1,4,4] = conv2d(%t, %v)
      output %y
    }"""
    )
    ranges = {"x": (-1.0, 1.0), "c": (-1.0, 1.0), "d": (0.0, 3.0), "t": (-1.0, 3.0)}
    result = run_passes(graph, [InsertFakeQuant(ranges=ranges)])
    grids = {n.input(0).name: n.attrs["quant"] for n in result.nodes if n.op.name == "fake_quant"}
    assert set(grids) == {"x", "c", "d"}
    assert grids["c"] == grids["d"] != grids["x"]


def test_a_missing_range_is_named() -> None:
    with pytest.raises(QcompError, match="no calibrated range for %x"):
        run_passes(parse_graph(NETWORK), [InsertFakeQuant(ranges={})])


def test_a_scale_is_raised_until_the_bias_fits() -> None:
    graph = parse_graph(
        """graph @m {
      input %x: f32[1,2]
      const %w: f32[2,2] = [1e-7, 0.0, 1.0, 1.0]
      const %b: f32[2] = [1000.0, 1.0]
      %xq: f32[1,2] = fake_quant(%x) {quant = q(0.0009765625, 0)}
      %y: f32[1,2] = gemm(%xq, %w, %b) {trans_b = true}
      output %y
    }"""
    )
    result = run_passes(graph, parse_pipeline("assign-per-channel,fold-fake-quant,fuse-requantize"))
    (node,) = [n for n in result.nodes if n.op.name == "qgemm"]
    bias = node.input(2).array.astype(np.int64)
    assert (np.abs(bias) <= 2**30).all() and bias[0] > 2**29
    out = run(result, {"x": np.zeros((1, 2), np.float32)})["y"]
    assert abs(out[0, 0] - 1000.0) < 1e-3


def test_quantized_weights_are_shifted_until_a_float_bias_fits() -> None:
    graph = parse_graph(
        """graph @m {
      input %x: f32[1,2]
      const %w: i8[2,2] q([9.31322574615478515625e-10, 1.0], [], axis=0) = [127, -127, 1, 2]
      const %b: f32[2] = [1000.0, 1.0]
      %xq: f32[1,2] = fake_quant(%x) {quant = q(0.5, 0)}
      %wr: f32[2,2] = dequantize(%w)
      %y: f32[1,2] = gemm(%xq, %wr, %b) {trans_b = true}
      output %y
    }"""
    )
    result = run_passes(graph, parse_pipeline("fold-fake-quant,fuse-requantize,fit-accumulators,prove-accumulators"))
    assert "qgemm" in _ops(result)
    assert np.allclose(run(result, {"x": np.ones((1, 2), np.float32)})["y"], [[1000.0, 4.0]], rtol=1e-6)


def test_a_product_whose_result_has_tiny_steps_saturates() -> None:
    graph = parse_graph(
        """graph @m {
      input %x: f32[3,1]
      const %w: i8[1,1] q(0.5, 0) = [127]
      %xq: f32[3,1] = fake_quant(%x) {quant = q(0.5, 0)}
      %wr: f32[1,1] = dequantize(%w)
      %p: f32[3,1] = gemm(%xq, %wr) {trans_b = true}
      %y: i8[3,1] q(9.31322574615478515625e-10, 100) = quantize(%p) {quant = q(9.31322574615478515625e-10, 100)}
      output %y
    }"""
    )
    result = run_passes(graph, parse_pipeline("fold-fake-quant,fuse-requantize,prove-accumulators"))
    assert "qgemm" in _ops(result)
    x = {"x": np.array([[-0.5], [0.0], [0.5]], np.float32)}
    assert run(result, x)["y"].tolist() == run(graph, x)["y"].tolist() == [[-128], [100], [127]]


@pytest.mark.parametrize("pipeline", ["assign-per-channel", "assign-per-channel{per_tensor=true}"])
def test_the_bias_of_channels_without_weights_is_kept(pipeline: str) -> None:
    graph = parse_graph(
        """graph @m {
      input %x: f32[1,2]
      const %w: f32[2,2] = [0.0, 0.0, 0.0, 0.0]
      const %b: f32[2] = [0.3, -0.0123]
      %xq: f32[1,2] = fake_quant(%x) {quant = q(1.0, 0)}
      %y: f32[1,2] = gemm(%xq, %w, %b) {trans_b = true}
      output %y
    }"""
    )
    result = run_passes(graph, parse_pipeline(f"{pipeline},fold-fake-quant,fuse-requantize"))
    assert "qgemm" in _ops(result)
    out = run(result, {"x": np.ones((1, 2), np.float32)})["y"]
    assert np.allclose(out, [[0.3, -0.0123]], rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", ["3,1", "3,3"])
def test_a_bias_that_differs_by_row_keeps_a_gemm_float(shape: str) -> None:
    rows, columns = map(int, shape.split(","))
    graph = parse_graph(
        f"""graph @m {{
      input %x: i8[3,2] q(0.5, 1)
      const %w: i8[3,2] q(0.25, 0) = [3, -4, 1, 2, 0, 1]
      const %b: i32[{shape}] q(0.125, 0) = {list(range(rows * columns))}
      %xr: f32[3,2] = dequantize(%x)
      %wr: f32[3,2] = dequantize(%w)
      %br: f32[{shape}] = dequantize(%b)
      %y: f32[3,3] = gemm(%xr, %wr, %br) {{trans_b = true}}
      output %y
    }}"""
    )
    assert "gemm" in _ops(run_passes(graph, parse_pipeline("fuse-requantize")))


def test_a_printed_integer_graph_parses_back() -> None:
    graph = parse_graph(NETWORK)
    assert print_graph(parse_graph(print_graph(graph))) == print_graph(graph)


def test_an_input_whose_columns_have_units_of_their_own_is_quantized_after_its_scaling() -> None:
    graph = parse_graph("""graph @m {
  input %x: f32[1,2]
  const %mean: f32[2] = [13, 750]
  const %factor: f32[2] = [1.25, 0.003]
  const %w: f32[2,2] = [1, 0, 0, 1]
  %d: f32[1,2] = sub(%x, %mean)
  %n: f32[1,2] = mul(%d, %factor)
  %y: f32[1,2] = gemm(%n, %w) {trans_b = true}
  output %y
}""")
    mean, factor = np.float32([13, 750]), np.float32([1.25, 0.003])
    samples = (np.random.default_rng(0).uniform(-2, 2, (64, 2)) / factor + mean).astype(np.float32)
    integer = quantize(graph, samples)
    assert [n.op.name for n in integer.nodes] == ["mul", "add", "quantize", "qgemm"]
    wrong = [run(integer, {"x": x[None]})["y"] - (x - mean) * factor for x in samples]
    assert np.abs(wrong).max() < 0.03  # two steps of a grid from -2 to 2
