"""The canonicalization pipeline on the shapes that exporters write."""

from __future__ import annotations

import numpy as np

from qcomp.ir import Graph, parse_graph
from qcomp.passes.canonicalize import canonicalization
from qcomp.passes.manager import Checker, PassRecord, run_passes


def canonical(text: str) -> Graph:
    graph = parse_graph(f"graph @m {{\n{text}\n}}")
    return run_passes(graph, canonicalization(), check=Checker.random(graph, samples=3))


def ops(graph: Graph) -> list[str]:
    return [n.op.name for n in graph]


def numbers(*shape: int) -> str:
    count = int(np.prod(shape))
    return f"f32[{','.join(map(str, shape))}] = [{', '.join(str((i * 5 % 9 - 4) / 4) for i in range(count))}]"


def test_a_pplcnet_block_becomes_convolutions_and_activations():
    """conv, scalar affine, hard swish in pieces, scalar affine, pointwise conv with batch norm (PP-OCRv4)."""
    graph = canonical(f"""
      input %x: f32[1,3,6,6]
      const %w: {numbers(4, 3, 3, 3)}
      const %v: {numbers(5, 4, 1, 1)}
      const %norm: f32[5] = [1, 2, 3, 4, 5]
      const %s: f32[1] = [0.7]
      const %t: f32[1] = [0.2]
      const %three: f32[] = [3]
      const %six: f32[] = [6]
      %c: f32[1,4,6,6] = conv2d(%x, %w) {{pads = [1, 1, 1, 1]}}
      %c1: f32[1,4,6,6] = mul(%s, %c)
      %c2: f32[1,4,6,6] = add(%c1, %t)
      %a: f32[1,4,6,6] = add(%c2, %three)
      %k: f32[1,4,6,6] = clip(%a) {{lo = 0.0, hi = 6.0}}
      %m: f32[1,4,6,6] = mul(%c2, %k)
      %h: f32[1,4,6,6] = div(%m, %six)
      %h1: f32[1,4,6,6] = mul(%t, %h)
      %h2: f32[1,4,6,6] = add(%h1, %s)
      %p: f32[1,5,6,6] = conv2d(%h2, %v)
      %n: f32[1,5,6,6] = batch_norm(%p, %norm, %norm, %norm, %norm)
      %y: f32[1,5,6,6] = relu(%n)
      output %y""")
    assert ops(graph) == ["conv2d", "hard_swish", "conv2d", "relu"]


def test_a_padded_convolution_keeps_the_shift_before_it_but_not_the_scale():
    graph = canonical(f"""
      input %x: f32[1,2,4,4]
      const %w: {numbers(2, 1, 3, 3)}
      const %s: f32[1] = [0.5]
      %h: f32[1,2,4,4] = hard_swish(%x)
      %m: f32[1,2,4,4] = mul(%h, %s)
      %y: f32[1,2,4,4] = conv2d(%m, %w) {{pads = [1, 1, 1, 1], groups = 2}}
      %n: f32[1,2,4,4] = add(%h, %s)
      %z: f32[1,2,4,4] = conv2d(%n, %w) {{pads = [1, 1, 1, 1], groups = 2}}
      output %y
      output %z""")
    assert sorted(ops(graph)) == ["add", "conv2d", "conv2d", "hard_swish"]


def test_squeeze_and_excite_by_means_and_matrices_becomes_pool_and_convolutions():
    graph = canonical(f"""
      input %x: f32[1,4,5,5]
      const %w: {numbers(4, 2)}
      const %v: {numbers(2, 4)}
      const %b: {numbers(2)}
      %p: f32[1,4] = reduce_mean(%x) {{axes = [2, 3], keepdims = false}}
      %g: f32[1,2] = matmul(%p, %w)
      %a: f32[1,2] = add(%g, %b)
      %r: f32[1,2] = relu(%a)
      %h: f32[1,4] = matmul(%r, %v)
      %s: f32[1,4] = sigmoid(%h)
      %e: f32[1,4,1,1] = reshape(%s) {{shape = [1, 4, 1, 1]}}
      %y: f32[1,4,5,5] = mul(%x, %e)
      output %y""")
    assert ops(graph) == ["avg_pool", "conv2d", "relu", "conv2d", "sigmoid", "mul"]


def test_a_flatten_after_global_pooling_is_one_reshape():
    graph = canonical(f"""
      input %x: f32[2,4,5,5]
      const %w: {numbers(3, 4)}
      %p: f32[2,4,1,1] = reduce_mean(%x) {{axes = [2, 3]}}
      %t: f32[2,1,1,4] = transpose(%p) {{perm = [0, 2, 3, 1]}}
      %f: f32[2,4,1] = reshape(%t) {{shape = [2, 4, 1]}}
      %r: f32[2,4,1] = relu(%f)
      %s: f32[2,4] = reshape(%r) {{shape = [2, 4]}}
      %y: f32[2,3] = gemm(%s, %w) {{trans_b = true}}
      output %y""")
    assert ops(graph) == ["avg_pool", "relu", "reshape", "gemm"]


def test_a_quantized_linear_layer_keeps_its_grids():
    graph = canonical("""
      input %x: f32[2,3,4]
      const %w: i8[5,4] q([0.5, 0.25, 0.5, 1.0, 2.0], [], axis=0) = [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]
      const %b: i32[5] q(0.125, 0) = [1, 2, 3, 4, 5]
      %xq: f32[2,3,4] = fake_quant(%x) {quant = q(0.25, 3)}
      %wd: f32[5,4] = dequantize(%w)
      %wt: f32[4,5] = transpose(%wd) {perm = [1, 0]}
      %bd: f32[5] = dequantize(%b)
      %m: f32[2,3,5] = matmul(%xq, %wt)
      %a: f32[2,3,5] = add(%m, %bd)
      %y: f32[2,3,5] = fake_quant(%a) {quant = q(0.5, 0)}
      output %y""")
    assert sorted(ops(graph)) == sorted(
        ["fake_quant", "dequantize", "dequantize", "reshape", "gemm", "reshape", "fake_quant"]
    )
    gemm = next(n for n in graph if n.op.name == "gemm")
    weight = gemm.input(1).producer.input(0)
    assert weight.shape == (5, 4) and weight.quant.axis == 0 and gemm.attrs["trans_b"]


def test_a_group_stops_when_a_round_changes_nothing():
    records: list[PassRecord] = []
    graph = parse_graph("graph @m {\ninput %x: f32[2]\n%a: f32[2] = neg(%x)\noutput %a\n}")
    run_passes(graph, canonicalization(), on_pass=records.append)
    names = [r.name for r in records]
    assert len(names) == names.count("fold-constants") * len(set(names))
    assert names.count("fold-constants") <= 3
