"""Which steps of a plan count as moving data only."""

from __future__ import annotations

import pytest

from qcomp.codegen.c.table import kernel_table
from qcomp.codegen.plan import make_plan
from qcomp.codegen.plan.moves import inner_moves
from qcomp.ir import parse_graph
from qcomp.targets import target

EDGES = """graph @g {
  input %x: f32[1,3,8,8]
  const %w: i8[4,1,1,3] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
  const %b: i32[4] = [0, 0, 0, 0]
  const %m: f32[4] = [0.5, 0.5, 0.5, 0.5]
  %q: i8[1,3,8,8] q(0.5, 0) = quantize(%x) {quant = q(0.5, 0)}
  %t: i8[1,8,8,3] q(0.5, 0) = transpose(%q) {perm = [0, 2, 3, 1]}
  %c: i8[1,8,8,4] q(0.5, 0) = qconv2d(%t, %w, %b, %m)
MIDDLE
  %d: f32[1,8,8,4] = dequantize(%LAST)
  %y: f32[1,4,8,8] = transpose(%d) {perm = [0, 3, 1, 2]}
  output %y
}"""


@pytest.mark.parametrize(
    ("middle", "last", "expected"),
    [
        ("", "c", []),
        ("  %u: i8[1,8,8,4] q(0.5, 0) = transpose(%c) {perm = [0, 2, 1, 3]}\n"
         "  const %z: i32[4] = [1, 1, 1, 1]\n"
         "  const %v: i8[4,1,1,4] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]\n"
         "  %e: i8[1,8,8,4] q(0.5, 0) = qconv2d(%u, %v, %z, %m)", "e", ["u"]),
    ],
    ids=["at the edges", "between convolutions"],
)  # fmt: skip
def test_moves_between_computing_steps_are_counted(middle: str, last: str, expected: list[str]) -> None:
    graph = parse_graph(EDGES.replace("MIDDLE", middle).replace("LAST", last))
    machine = target("x86_64")
    plan = make_plan(graph, lambda node: kernel_table().select(node, machine), converts_i8=True)
    assert [step.node.output.name for step in inner_moves(plan)] == expected
