"""Sums that become the residual of a convolution."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.ir import parse_graph, run
from qcomp.passes.fuse_residual import FuseResidual


def sums(conv: str = "", add: str = "b_zp = 3, zp = -7", output: str = "", second: str = "%r") -> str:
    return f"""graph @m {{
      input %x: i8[1,4,4,2] q(0.5, 0)
      input %r: i8[1,4,4,2] q(0.5, 0)
      const %w: i8[2,1,1,2] = [100, -7, 31, 5]
      const %b: i32[2] = [17, -300]
      const %m: f32[2] = [0.0078125, 0.009765625]
      %a: i8[1,4,4,2] q(0.5, 0) = qconv2d(%x, %w, %b, %m) {{zp = 2{conv}}}
      %y: i8[1,4,4,2] q(0.5, 0) = qadd(%a, {second}) {{a_zp = 2, a_mult = 0.5, b_mult = 0.25, {add}}}
      output %y{output}
    }}"""


def test_a_sum_becomes_the_residual(rewritten):
    attrs = "r_zp = 3, r_mult = 0.25, bounded = true, zp = -7"
    rewritten(
        FuseResidual(),
        sums(),
        f"""graph @m {{
          input %x: i8[1,4,4,2] q(0.5, 0)
          input %r: i8[1,4,4,2] q(0.5, 0)
          const %w: i8[2,1,1,2] = [100, -7, 31, 5]
          const %b: i32[2] = [17, -300]
          const %mult: f32[2] = [0.00390625, 0.0048828125]
          %y: i8[1,4,4,2] q(0.5, 0) = qconv2d(%x, %w, %b, %mult, _, %r) {{{attrs}}} @"a"
          output %y
        }}""",
    )


@pytest.mark.parametrize(
    "text",
    [
        sums(conv=", lo = -3"),
        sums(conv=", bounded = true"),
        sums(output="\n      output %a"),
        sums(second="%a"),
        sums().replace("[1,4,4,2] q(0.5, 0)\n      const %w", "[1,1,1,2] q(0.5, 0)\n      const %w"),
    ],
    ids=["a clamp before the sum", "a clamp at the ends of the grid", "a second reader", "a sum with itself",
         "a sum that broadcasts"],
)
def test_other_sums_stay(rewritten, text):
    rewritten(FuseResidual(), text, None)


def test_results_move_by_a_step_at_most():
    before, after = (parse_graph(sums()) for _ in range(2))
    FuseResidual().run(after)
    rng = np.random.default_rng(0)
    feeds = {name: rng.integers(-40, 40, (1, 4, 4, 2), dtype=np.int8) for name in "xr"}
    assert np.abs(run(after, feeds)["y"].astype(int) - run(before, feeds)["y"].astype(int)).max() <= 1


@pytest.mark.parametrize("factor", [0.3, 0.7, 1.9999])
def test_factors_are_rounded_to_sixteen_bits(factor):
    given = float(np.float32(factor))
    graph = parse_graph(sums().replace("b_mult = 0.25", f"b_mult = {given!r}"))
    FuseResidual().run(graph)
    found = graph.nodes[0].call.float("r_mult")
    assert np.float32(found).view(np.uint32) % 256 == 0
    assert abs(found - given) <= 2.0 ** (np.frexp(given)[1] - 17)


@pytest.mark.parametrize(
    "text",
    [sums().replace("b_mult = 0.25", "b_mult = 16383.9990234375"),
     sums().replace("a_mult = 0.5", "a_mult = 16000.0").replace("0.0078125", "3e38")],
    ids=["a residual's factor that rounds up to the limit", "a multiplier beyond float32"],
)  # fmt: skip
def test_sums_with_factors_that_a_convolution_does_not_take_stay(rewritten, text):
    rewritten(FuseResidual(), text, None)
