"""Products that quantize their input at run time: what onnxruntime writes, and what --dynamic makes of float ones."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.ir import parse_graph, run
from qcomp.passes.fuse_dynamic_quantize import FuseDynamicQuantize
from qcomp.passes.manager import run_passes
from qcomp.passes.quantize_dynamically import QuantizeDynamically

PRODUCT = """graph @m {{
    input %x: f32[2,3]
    const %w: {dtype}[3,2] = {weights}
    {zero}
    const %ws: f32[2] = [0.5, 0.25]
    const %b: f32[2] = [1, -1]
    %q: u8[2,3], %s: f32[], %z: u8[] = dynamic_quantize(%x)
    %acc: i32[2,2] = matmul_integer(%q, %w, %z{operand})
    %real: f32[2,2] = cast(%acc) {{dtype = !f32}}
    %scale: f32[2] = mul(%s, %ws)
    %scaled: f32[2,2] = mul({factors})
    %y: f32[2,2] = add(%b, %scaled)
    output %y
}}"""


def product(weights: list[int], zero: str = "", dtype: str = "i8", factors: str = "%real, %scale") -> str:
    operand = ", %wz" if zero else ""
    return PRODUCT.format(dtype=dtype, weights=weights, zero=zero, operand=operand, factors=factors)


FUSED = """graph @m {{
    input %x: f32[2,3]
    const %w.1: i8[2,3] = {weights}
    const %w.scale: f32[2] = [0.5, 0.25]
    {zero}
    const %b.1: f32[2] = [1, -1]
    %q.1: i8[2,3], %s.1: f32[], %z.1: i8[] = dynamic_quantize(%x) {{dtype = !i8}} @"q"
    %y: f32[2,2] = dynamic_qgemm(%q.1, %s.1, %z.1, %w.1, %w.scale, %b.1{operand}) @"acc"
    output %y
}}"""


@pytest.mark.parametrize("factors", ["%real, %scale", "%scale, %real"])
def test_product_scale_and_bias_become_one_op_that_gives_the_same_bits(rewritten, factors):
    rewritten(
        FuseDynamicQuantize(),
        product([1, 2, 3, 4, 5, -6], factors=factors),
        FUSED.format(weights=[1, 3, 5, 2, 4, -6], zero="", operand=""),
    )


def test_weights_of_uint8_are_centred_where_that_fits(rewritten):
    rewritten(
        FuseDynamicQuantize(),
        product([1, 2, 3, 4, 5, 128], "const %wz: u8[2] = [2, 3]", "u8"),
        FUSED.format(weights=[-1, 1, 3, -1, 1, 125], zero="", operand=""),
    )


def test_zero_points_stay_where_centred_weights_leave_int8(rewritten):
    rewritten(
        FuseDynamicQuantize(),
        product([1, 2, 3, 4, 5, 255], "const %wz: u8[2] = [2, 3]", "u8"),
        FUSED.format(
            weights=[-127, -125, -123, -126, -124, 127], zero="const %w.zp: i8[2] = [-126, -125]", operand=", %w.zp"
        ),
    )


def test_an_accumulator_that_is_wanted_stays(rewritten):
    text = product([1, 2, 3, 4, 5, 6]).replace("output %y", "output %y\noutput %acc")
    rewritten(FuseDynamicQuantize(), text, None)


GEMM = """graph @m {
    input %x: f32[4,3]
    const %w: f32[2,3] = [1.27, -0.5, 0, 0, 0, 0]
    const %b: f32[2] = [1, -1]
    %y: f32[4,2] = gemm(%x, %w, %b) {trans_b = true}
    output %y
}"""


def test_a_product_with_float_weights_becomes_dynamic():
    graph = run_passes(parse_graph(GEMM), [QuantizeDynamically()])
    assert [n.op.name for n in graph.nodes] == ["dynamic_quantize", "dynamic_qgemm"]
    product = graph.nodes[1]
    assert product.input(3).array.tolist() == [[127, -50, 0], [0, 0, 0]]
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    expected = run(parse_graph(GEMM), {"x": x})["y"]
    assert np.abs(run(graph, {"x": x})["y"] - expected).max() < 0.02


def test_a_row_does_not_depend_on_the_others():
    graph = run_passes(parse_graph(GEMM), [QuantizeDynamically()])
    x = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    other = np.vstack([x[:1], x[1:] * 1000])
    assert (run(graph, {"x": x})["y"][0] == run(graph, {"x": other})["y"][0]).all()


def test_factors_of_gemm_join_the_scales():
    halved = run_passes(parse_graph(GEMM.replace("{trans_b", "{alpha = 0.5, trans_b")), [QuantizeDynamically()])
    plain = run_passes(parse_graph(GEMM), [QuantizeDynamically()])
    assert (halved.nodes[1].input(4).array == plain.nodes[1].input(4).array * 0.5).all()


LAYER = """graph @m {
    input %x: f32[3,2,8]
    const %r: f32[8,2] = [1.27, -0.5, 0, 0, 0.3, 0.1, 0, 0, 1, 1, 2, 2, 3, 3, -4, 4]
    %y: f32[3,2,2], %h: f32[2,2], %c: f32[2,2] = lstm(%x, %r)
    output %y
    output %c
}"""


def test_recurrent_weights_become_int8():
    graph = run_passes(parse_graph(LAYER), [QuantizeDynamically()])
    (layer,) = graph.nodes
    assert layer.input(1).array.tolist()[:2] == [[127, -50], [0, 0]]
    x = np.random.default_rng(0).normal(size=(3, 2, 8)).astype(np.float32)
    expected, found = (run(g, {"x": x}) for g in (parse_graph(LAYER), graph))
    assert all(np.abs(found[n] - expected[n]).max() < 0.02 for n in ("y", "c"))
