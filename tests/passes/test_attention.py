"""Attention: found in the pieces that exporters write, taken apart where it stays float, and made integer."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.compiler import preview, quantize
from qcomp.ir import DType, Graph, parse_graph, run
from qcomp.passes.canonicalize import Canonicalize
from qcomp.passes.expand_attention import ExpandAttention
from qcomp.passes.manager import Checker, run_passes
from qcomp.passes.recognize_attention import RecognizeAttention

HEADER = """graph @m {
input %q: f32[2,3,5,8]
input %k: f32[2,3,8,7]
input %v: f32[2,3,7,4]
input %mask: f32[2,1,1,7]
input %seen: bool[1,1,5,7]
const %eight: f32[] = [8]
const %half: f32[1] = [0.5]
const %far: f32[] = [-1000000000]
const %near: f32[] = [-10000]
"""
S, P = "f32[2,3,5,7]", "f32[2,3,5,4]"
WEIGHTED = f"\n%p: {S} = softmax(%m) {{axis = 3}}\n%y: {P} = matmul(%p, %v)\noutput %y\n}}"
FORMS = {
    "plain": (f"%m: {S} = matmul(%q, %k)", 1.0, False),
    "divided": (f"%s: {S} = matmul(%q, %k)\n%m: {S} = div(%s, %eight)", 0.125, False),
    "mask": (f"%s: {S} = matmul(%q, %k)\n%d: {S} = mul(%half, %s)\n%m: {S} = add(%mask, %d)", 0.5, True),
    "scaled last": (f"%s: {S} = matmul(%q, %k)\n%d: {S} = add(%s, %mask)\n%m: {S} = mul(%d, %half)", 0.5, True),
    "scaled query": (f"%t: f32[2,3,5,8] = mul(%q, %half)\n%m: {S} = matmul(%t, %k)", 0.5, False),
    "where": (f"%s: {S} = matmul(%q, %k)\n%m: {S} = where(%seen, %s, %far)", 1.0, True),
    "two masks": (f"%s: {S} = matmul(%q, %k)\n%d: {S} = add(%s, %mask)\n%m: {S} = add(%d, %mask)", 1.0, True),
}  # fmt: skip


def attention_of(graph: Graph):
    (node,) = [n for n in graph.nodes if n.op.name == "attention"]
    return node


@pytest.mark.parametrize("form", FORMS)
def test_pieces_become_attention_and_back(form: str) -> None:
    body, scale, masked = FORMS[form]
    graph = parse_graph(HEADER + body + WEIGHTED)
    found = run_passes(graph, [RecognizeAttention()], check=Checker.random(graph, samples=3))
    node = attention_of(found)
    assert node.call.float("scale") == scale and (node.optional(3) is not None) == masked
    assert "softmax" not in [n.op.name for n in found.nodes]
    apart = run_passes(found, [ExpandAttention()], check=Checker.random(found, samples=2))
    assert [n.op.name for n in apart.nodes].count("matmul") == 2 and "attention" not in str(apart)


@pytest.mark.parametrize(
    "body",
    [
        f"%s: {S} = matmul(%q, %k)\n%m: {S} = where(%seen, %s, %near)",  # a row that is hidden throughout is uniform
        f"%s: {S} = matmul(%q, %k)\n%m: {S} = mul(%s, %mask)",
        f"%m: {S} = matmul(%q, %k)\noutput %m",  # the scores are wanted
    ],
)
def test_other_forms_stay(body: str) -> None:
    graph = parse_graph(HEADER + body + WEIGHTED)
    assert "attention" not in [n.op.name for n in run_passes(graph, [RecognizeAttention()]).nodes]


@pytest.mark.parametrize(
    "steps",
    [
        "%d: {S} = where(%seen, %s, %lowest)\n%m: {S} = where(%seen, %d, %lowest)",
        "%d: {S} = add(%s, %low)\n%m: {S} = where(%seen, %d, %lowest)",
        "%d: {S} = where(%seen, %lowest, %s)\n%e: {S} = where(%seen, %d, %lowest)\n%m: {S} = mul(%e, %half)",
    ],
    ids=["where twice", "add then where", "where either way"],
)
def test_a_query_that_several_masks_hide_sees_all_keys_alike(steps: str) -> None:
    consts = "const %lowest: f32[] = [-3.4028234663852886e+38]\nconst %low: f32[1] = [-3e38]\n"
    text = HEADER + consts + f"%s: {S} = matmul(%q, %k)\n" + steps.replace("{S}", S) + WEIGHTED
    graph = parse_graph(text)
    rng = np.random.default_rng(3)
    feeds = {v.name: rng.normal(size=v.shape).astype(np.float32) for v in graph.inputs}
    feeds["seen"] = np.zeros((1, 1, 5, 7), bool)
    found = run_passes(parse_graph(text), [RecognizeAttention()])
    attention_of(found)
    assert np.allclose(run(found, feeds)["y"], run(graph, feeds)["y"], atol=1e-5)


def test_a_softmax_along_the_queries_stays() -> None:
    text = (HEADER + FORMS["plain"][0] + WEIGHTED).replace("axis = 3", "axis = 2")
    assert "attention" not in [n.op.name for n in run_passes(parse_graph(text), [RecognizeAttention()]).nodes]


@pytest.mark.parametrize("rank", [2, 3])
def test_fewer_dimensions(rank: int) -> None:
    lead = "6," * (rank - 2)
    text = f"""graph @m {{
    input %q: f32[{lead}5,8]
    input %k: f32[{lead}8,7]
    input %v: f32[{lead}7,4]
    input %mask: f32[5,7]
    %s: f32[{lead}5,7] = matmul(%q, %k)
    %m: f32[{lead}5,7] = add(%s, %mask)
    %p: f32[{lead}5,7] = softmax(%m) {{axis = {rank - 1}}}
    %y: f32[{lead}5,4] = matmul(%p, %v)
    output %y
    }}"""
    graph = parse_graph(text)
    found = run_passes(graph, [RecognizeAttention()], check=Checker.random(graph, samples=3))
    assert attention_of(found).output.shape == (6 if rank == 3 else 1, 5, 1, 4)


BLOCK = """graph @block {
input %x: f32[1,6,8]
const %wq: f32[8,8] = WEIGHTS
const %wk: f32[8,8] = WEIGHTS
const %wv: f32[8,8] = WEIGHTS
const %wo: f32[8,8] = WEIGHTS
const %one: f32[8] = [1, 1, 1, 1, 1, 1, 1, 1]
%q: f32[1,6,8] = matmul(%x, %wq)
%k: f32[1,6,8] = matmul(%x, %wk)
%v: f32[1,6,8] = matmul(%x, %wv)
%q4: f32[1,6,2,4] = reshape(%q) {shape = [1, 6, 2, 4]}
%k4: f32[1,6,2,4] = reshape(%k) {shape = [1, 6, 2, 4]}
%v4: f32[1,6,2,4] = reshape(%v) {shape = [1, 6, 2, 4]}
%qh: f32[1,2,6,4] = transpose(%q4) {perm = [0, 2, 1, 3]}
%kh: f32[1,2,4,6] = transpose(%k4) {perm = [0, 2, 3, 1]}
%vh: f32[1,2,6,4] = transpose(%v4) {perm = [0, 2, 1, 3]}
%s: f32[1,2,6,6] = matmul(%qh, %kh)
%p: f32[1,2,6,6] = softmax(%s) {axis = 3}
%c: f32[1,2,6,4] = matmul(%p, %vh)
%ct: f32[1,6,2,4] = transpose(%c) {perm = [0, 2, 1, 3]}
%cr: f32[1,6,8] = reshape(%ct) {shape = [1, 6, 8]}
%o: f32[1,6,8] = matmul(%cr, %wo)
%r: f32[1,6,8] = add(%o, %x)
%n: f32[1,6,8] = layer_norm(%r, %one) {axis = 2}
output %n
}"""


def block() -> Graph:
    rng = np.random.default_rng(9)
    text = BLOCK
    while "WEIGHTS" in text:
        weights = ", ".join(f"{w:.4f}" for w in rng.normal(size=64) * 0.35)
        text = text.replace("WEIGHTS", f"[{weights}]", 1)
    return parse_graph(text)


def test_transposes_around_attention_cancel() -> None:
    graph = run_passes(block(), [Canonicalize()])
    ops = [n.op.name for n in graph.nodes]
    assert ops.count("attention") == 1 and "transpose" not in ops and "softmax" not in ops


def test_a_block_runs_on_integers_with_its_residual_stream_in_int16() -> None:
    from qcomp.reports.coverage import coverage

    graph = block()
    samples = np.random.default_rng(3).normal(size=(32, 1, 6, 8)).astype(np.float32)
    integer = quantize(graph, samples)
    names = [n.op.name for n in integer.nodes]
    assert names.count("qgemm") == 4 and names.count("qattention") == 1
    found = coverage(integer)
    assert found.integer_share == 1.0
    assert not found.islands and {n.dtype for n in integer.values} >= {DType.I16}
    x = np.random.default_rng(4).normal(size=(1, 6, 8)).astype(np.float32)
    expected, got = run(block(), {"x": x})["n"], run(integer, {"x": x})["n"]
    assert np.abs(expected - got).max() < 0.25 and np.corrcoef(expected.ravel(), got.ravel())[0, 1] > 0.99


def test_a_product_a_softmax_and_a_norm_between_integers_are_integer() -> None:
    text = """graph @m {
    input %x: f32[1,6,8]
    const %w: f32[8,6] = WEIGHTS
    const %g: f32[6] = [1, 2, 1, 2, 1, 2]
    %a: f32[1,6,6] = matmul(%x, %w)
    %n: f32[1,6,6] = layer_norm(%a, %g) {axis = 2}
    %s: f32[1,6,6] = softmax(%n) {axis = 2}
    %y: f32[1,6,6] = matmul(%s, %a)
    output %y
    }""".replace("WEIGHTS", str([round(v, 3) for v in np.random.default_rng(2).normal(size=48).tolist()]))
    names = [n.op.name for n in preview(parse_graph(text)).nodes]
    assert {"qgemm", "qlayer_norm", "qsoftmax", "qmatmul"} <= set(names)
    assert not {"layer_norm", "softmax", "matmul"} & set(names)
