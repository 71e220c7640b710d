from __future__ import annotations

import re

import pytest

from qcomp.ir import parse_graph, print_graph
from qcomp.passes.manager import Checker, run_passes
from qcomp.passes.recognize_activations import RecognizeActivations

CONSTANTS = {
    "half": 0.5, "one": 1.0, "two": 2.0, "three": 3.0, "six": 6.0, "sixth": 1 / 6, "zero": 0.0,
    "root2": 2**0.5, "inv_root2": 0.5**0.5, "cubic": 0.044715, "c797": 0.7978845608028654, "c1595": 1.5957691216057308,
    "k3568": 0.7978845608028654 * 0.044715, "n1": -1.0, "quick": 1.702,
}  # fmt: skip


def pieces(body: str) -> str:
    """A graph text of `name = op(operands) {attrs}` lines over f32[2,5] values and scalar constants."""
    lines = [line.strip() for line in body.strip().splitlines()]
    named = set(re.findall(r"%(\w+)", body))
    used = [c for c in CONSTANTS if c in named]
    consts = [f"const %{c}: f32[] = [{CONSTANTS[c]!r}]" for c in used]
    nodes = []
    for line in lines:
        name, _, rest = line.partition(" = ")
        nodes.append(f"%{name}: f32[2,5] = {rest}")
    return "\n".join(["graph @m {", "input %x: f32[2,5]", *consts, *nodes, "output %y", "}"])


SPELLINGS = {
    "hard_swish(%x)": [
        "a = add(%x, %three)\nc = clip(%a) {lo=0.0, hi=6.0}\nm = mul(%x, %c)\ny = div(%m, %six)",
        "a = add(%three, %x)\nc = clip(%a) {lo=0.0, hi=6.0}\nm = mul(%c, %x)\ny = mul(%m, %sixth)",
        "a = add(%x, %three)\nc = clip(%a) {lo=0.0, hi=6.0}\nm = div(%c, %six)\ny = mul(%x, %m)",
        "a = add(%x, %three)\nc = clip(%a) {lo=0.0, hi=6.0}\nm = mul(%x, %sixth)\ny = mul(%m, %c)",
        "a = add(%x, %three)\nb = maximum(%a, %zero)\nc = minimum(%b, %six)\nm = mul(%x, %c)\ny = div(%m, %six)",
        "a = add(%x, %three)\nb = relu(%a)\nc = minimum(%b, %six)\nm = mul(%x, %c)\ny = div(%m, %six)",
        "h = hard_sigmoid(%x) {alpha=0.16666666666666666, beta=0.5}\ny = mul(%x, %h)",
    ],
    "hard_sigmoid(%x) {alpha=0.16666666666666666, beta=0.5}": [
        "a = add(%x, %three)\nc = clip(%a) {lo=0.0, hi=6.0}\ny = div(%c, %six)",
        "a = mul(%x, %sixth)\nb = add(%a, %half)\ny = clip(%b) {lo=0.0, hi=1.0}",
    ],
    "silu(%x)": ["s = sigmoid(%x)\ny = mul(%x, %s)", "s = sigmoid(%x)\ny = mul(%s, %x)",
                 "n = neg(%x)\ne = exp(%n)\nd = add(%e, %one)\ny = div(%x, %d)"],
    "sigmoid(%x)": ["n = neg(%x)\ne = exp(%n)\nd = add(%e, %one)\ny = reciprocal(%d)"],
    "gelu(%x)": [
        "d = div(%x, %root2)\ne = erf(%d)\na = add(%e, %one)\nm = mul(%x, %a)\ny = mul(%m, %half)",
        "d = mul(%x, %inv_root2)\ne = erf(%d)\na = add(%one, %e)\nh = mul(%x, %half)\ny = mul(%h, %a)",
        "d = div(%x, %root2)\ne = erf(%d)\na = add(%e, %one)\nh = mul(%a, %half)\ny = mul(%x, %h)",
    ],
    'gelu(%x) {approximate="tanh"}': [
        "p = pow(%x, %three)\nc = mul(%p, %cubic)\ns = add(%x, %c)\nu = mul(%s, %c797)\nt = tanh(%u)\n"
        "a = add(%t, %one)\nh = mul(%x, %half)\ny = mul(%h, %a)",
        "q = mul(%x, %x)\nk = mul(%q, %k3568)\nl = add(%k, %c797)\nu = mul(%x, %l)\nt = tanh(%u)\n"
        "a = add(%t, %one)\nm = mul(%x, %a)\ny = mul(%m, %half)",
    ],
    "mish(%x)": ["s = softplus(%x)\nt = tanh(%s)\ny = mul(%x, %t)",
                 "e = exp(%x)\nb = add(%e, %one)\ns = log(%b)\nt = tanh(%s)\ny = mul(%x, %t)"],
    "softplus(%x)": ["e = exp(%x)\nb = add(%e, %one)\ny = log(%b)"],
    "relu(%x)": ["y = clip(%x) {lo=0.0}", "y = maximum(%x, %zero)"],
    "clip(%x) {lo=0.0, hi=6.0}": [
        "a = relu(%x)\ny = minimum(%a, %six)",
        "a = minimum(%x, %six)\ny = maximum(%a, %zero)",
    ],
}


@pytest.mark.parametrize(
    ("expected", "body"), [(e, b) for e, bodies in SPELLINGS.items() for b in bodies], ids=lambda v: v[:40]
)
def test_pieces_become_the_activation(rewritten, expected, body):
    rewritten(RecognizeActivations(), pieces(body), pieces(f"y = {expected}"), samples=5)


def test_a_factor_stays_as_a_mul():
    body = "a = add(%x, %three)\nc = clip(%a) {lo=0.0, hi=6.0}\ny = mul(%x, %c)"
    graph = parse_graph(pieces(body))
    result = run_passes(graph, [RecognizeActivations()], check=Checker.random(graph))
    assert [n.op.name for n in result] == ["hard_swish", "mul"]


@pytest.mark.parametrize(
    "body",
    [
        "q = mul(%x, %quick)\ns = sigmoid(%q)\ny = mul(%x, %s)",  # quick GELU is none of the ops
        "a = add(%x, %two)\nc = clip(%a) {lo=0.0, hi=6.0}\ny = mul(%x, %c)",
        "y = clip(%x) {lo=0.0, hi=6.0}",
        "r = relu(%x)\ny = mul(%r, %two)",
        "y = add(%x, %three)",
    ],
)
def test_other_functions_stay(rewritten, body):
    rewritten(RecognizeActivations(), pieces(body), None)


def test_pieces_with_another_user_stay():
    text = pieces("s = sigmoid(%x)\ny = mul(%x, %s)").replace("output %y", "output %y\noutput %s")
    graph = run_passes(parse_graph(text), [RecognizeActivations()])
    assert print_graph(graph) == print_graph(parse_graph(text))
