"""From a range of real numbers to scale and zero point: the formulas live on the ground floor, in qcomp.ir.affine."""

from __future__ import annotations

from qcomp.ir.affine import MIN_SCALE, affine_parameters, integer_limits, weight_scales

__all__ = ["MIN_SCALE", "affine_parameters", "integer_limits", "weight_scales"]
