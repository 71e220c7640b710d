"""Multipliers of products, rounded to halves."""

from __future__ import annotations

import numpy as np
import pytest

import qcomp.compiler as compiler
from qcomp.ir import parse_graph, run
from qcomp.passes.shorten_multipliers import ShortenMultipliers


def gemm(mult: str) -> str:
    return f"""graph @m {{
      input %x: i8[5,3] q(0.5, 0)
      const %w: i8[2,3] = [100, -7, 31, 5, 90, -127]
      const %b: i32[2] = [17, -300]
      const %m: f32[2] = {mult}
      %y: i8[5,2] q(0.5, 0) = qgemm(%x, %w, %b, %m) {{x_zp = 3, zp = -2}}
      output %y
    }}"""


def test_multipliers_get_eleven_bits(rewritten):
    after = gemm("[0.010101318359375, 0.0200042724609375]").replace("%m", "%m.1")
    graph = rewritten(ShortenMultipliers(), gemm("[0.0101, 0.02]"), after)
    assert graph.nodes[0].input(3).array.tolist() == [0.0101013183593750, 0.0200042724609375]


@pytest.mark.parametrize("mult", ["[0.0, 0.5]", "[1.0, 1e-20]", "[3e38, 3e38]", "[0.75, 0.25]"])
def test_multipliers_that_are_short_or_too_far_apart_stay(rewritten, mult):
    rewritten(ShortenMultipliers(), gemm(mult), None)


def test_results_move_by_a_step_at_most():
    before, after = (parse_graph(gemm("[0.0079, 0.0091]")) for _ in range(2))
    ShortenMultipliers().run(after)
    x = {"x": np.random.default_rng(0).integers(-128, 128, (5, 3), dtype=np.int8)}
    moved = run(after, x)["y"].astype(int) - run(before, x)["y"].astype(int)
    assert np.abs(moved).max() <= 1


def test_the_driver_rounds_where_it_chose_the_scales_only():
    names = [step.name for step in compiler.integer_lowering(own_scales=False)]
    assert "shorten-multipliers" not in names
    assert "shorten-multipliers" in [step.name for step in compiler.integer_lowering()]
