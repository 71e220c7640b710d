"""signed-edges: what unsigned integers at a model's edges become, and that nothing else is touched."""

from __future__ import annotations

from qcomp.passes.signed_edges import SignedEdges


def test_edges_get_signed_grids(rewritten):
    rewritten(
        SignedEdges(),
        """graph @g {requantize = "float"} {
          input %x: u8[4] q(0.5, 128)
          %r: f32[4] = dequantize(%x)
          %s: f32[4] = relu(%r)
          %y: u8[4] q(0.25, 3) = quantize(%s) {quant = q(0.25, 3), dtype = !u8}
          output %y
        }""",
        """graph @g {requantize = "float"} {
          input %x: u8[4] q(0.5, 128)
          %r: f32[4] = dequantize(%x)
          %r.signed: f32[4] = fake_quant(%r) {quant = q(0.5, 0)}
          %s: f32[4] = relu(%r.signed)
          %s.signed: f32[4] = fake_quant(%s) {quant = q(0.25, -125)}
          %y: u8[4] q(0.25, 3) = quantize(%s.signed) {quant = q(0.25, 3), dtype = !u8}
          output %y
        }""",
    )


def test_signed_integers_and_channels_stay(rewritten):
    rewritten(
        SignedEdges(),
        """graph @g {requantize = "float"} {
          input %x: i8[2] q(0.5, 7)
          input %z: u8[2] q([0.5, 0.25], [7, 8], axis=0)
          %r: f32[2] = dequantize(%x)
          %s: f32[2] = dequantize(%z)
          %t: f32[2] = add(%r, %s)
          %y: i8[2] q(0.25, 3) = quantize(%t) {quant = q(0.25, 3)}
          output %y
        }""",
        None,
    )
