"""sink-transposes comes to an end where operands pull in opposite directions."""

from __future__ import annotations

import pytest

from qcomp.ir import parse_graph
from qcomp.passes.manager import Checker, run_passes
from qcomp.passes.sink_transposes import SinkTransposes

PLANAR, CHANNELS_LAST = "[0, 3, 1, 2]", "[0, 2, 3, 1]"


@pytest.mark.parametrize(
    ("shape", "perm", "moved"),
    [
        ((1, 4, 5, 3), PLANAR, (1, 3, 4, 5)),
        ((1, 4, 5, 3), CHANNELS_LAST, (1, 5, 3, 4)),
        ((1, 4, 5, 1), PLANAR, (1, 1, 4, 5)),  # one channel: the transposes move nothing
        ((1, 1, 4, 5), CHANNELS_LAST, (1, 4, 5, 1)),
        ((1, 2, 3, 4), "[0, 2, 1, 3]", (1, 3, 2, 4)),
    ],
)
@pytest.mark.parametrize("op", ["add(%t, %b)", "mul(%b, %t)", "concat(%t, %b) {axis = 1}"])
def test_equal_operands_of_which_one_is_transposed(
    shape: tuple[int, ...], perm: str, moved: tuple[int, ...], op: str
) -> None:
    result = (1, moved[1] * 2, *moved[2:]) if "concat" in op else moved
    dims = [",".join(map(str, s)) for s in (shape, moved, result)]
    graph = parse_graph(
        f"""graph @g {{requantize = "float"}} {{
        input %x: f32[{dims[0]}]
        input %b: f32[{dims[1]}]
        %t: f32[{dims[1]}] = transpose(%x) {{perm = {perm}}}
        %y: f32[{dims[2]}] = {op}
        output %y
        }}"""
    )
    graph = run_passes(graph, [SinkTransposes()], check=Checker.random(graph))
    transposes = [n for n in graph.nodes if n.op.name == "transpose"]
    assert 1 <= len(transposes) <= 2


def test_transposed_operands_of_one_element() -> None:
    graph = parse_graph(
        f"""graph @g {{requantize = "float"}} {{
        input %x: f32[1,1,1,1]
        input %b: f32[1,1,1,1]
        %t: f32[1,1,1,1] = transpose(%x) {{perm = {PLANAR}}}
        %u: f32[1,1,1,1] = transpose(%b) {{perm = {PLANAR}}}
        %y: f32[1,1,1,1] = mul(%t, %u)
        output %y
        }}"""
    )
    graph = run_passes(graph, [SinkTransposes()], check=Checker.random(graph))
    assert [n.op.name for n in graph.nodes] == ["mul", "transpose"]
