"""Layers of products as this back end sees them: convolutions of planes, with what becomes of their sums."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qcomp.codegen.c.vector.lines import is_flat
from qcomp.codegen.c.vector.runs import runs_of
from qcomp.codegen.c.vector.shapes import ConvShape, Float32, Int8, Int32, Residual
from qcomp.codegen.c.vector.views import is_depthwise
from qcomp.codegen.tvm.forms import DENSE, DEPTHWISE, Form
from qcomp.codegen.tvm.shares import MOST_TASKS, divisor
from qcomp.codegen.tvm.tiling import Tiling, tilings
from qcomp.targets import Target

_WORK_OF_A_TASK = 1 << 20


@dataclass(frozen=True)
class Ending:
    """What becomes of sums, in stored terms; dtype: "uint8", "int8" or "float32", which needs nothing else."""

    dtype: str
    zp: int
    lo: int
    hi: int
    table: np.ndarray | None = None
    residual: Residual | None = None


@dataclass(frozen=True)
class Layer:
    """A convolution, or a matrix product as one, with its weights int8 [O, KH, KW, C/groups]; x_zp is as stored."""

    shape: ConvShape
    weights: Int8
    bias: Int32
    mult: Float32
    x_zp: int
    ending: Ending

    @property
    def depthwise(self) -> bool:
        return is_depthwise(self.shape)

    @property
    def groups(self) -> int:
        """Dense blocks of groups of channels, which are computed one by one."""
        return 1 if self.depthwise else runs_of(self.shape).blocks

    @property
    def taps(self) -> tuple[int, int]:
        """Rows and columns of what is read apart."""
        columns = self.shape.kernel[1]
        return self.shape.kernel[0], columns if self.depthwise or runs_of(self.shape).per_tap else 1

    @property
    def depth(self) -> int:
        """Bytes of each."""
        return 1 if self.depthwise else runs_of(self.shape).length

    @property
    def inputs(self) -> int:
        """Channels of x that a group reads."""
        return self.shape.x.channels // self.groups

    @property
    def outputs(self) -> int:
        return self.shape.y.channels // self.groups

    @property
    def flat(self) -> bool:
        return is_flat(self.shape, self.ending.residual)

    @property
    def tasks(self) -> int:
        """How many are worth their while."""
        return max(1, min(MOST_TASKS, self.shape.macs // _WORK_OF_A_TASK))

    @property
    def pieces(self) -> int:
        """How many to cut the pixels into: none where weights, which each piece reads, have more bytes than x."""
        if self.weights.size > self.shape.y.pixels * self.shape.x.channels:
            return 1
        return -(-self.tasks // self.groups)

    @property
    def line(self) -> int:
        """Pixels that follow each other."""
        if not self.flat:
            return self.shape.y.width
        return self.shape.y.pixels // divisor(self.shape.y.pixels, self.pieces)

    def over(self, form: Form) -> int:
        """Bytes that the form reads past what a window has."""
        if form.depthwise:
            return -self.outputs % form.lanes
        return -self.depth % form.unit


def forms_of(layer: Layer, target: Target) -> list[Form]:
    """Forms that compute the layer on the target, the most capable first."""
    return [form for form in (DEPTHWISE if layer.depthwise else DENSE) if form.fits(target)]


def schedules_of(layer: Layer, target: Target) -> list[Tiling]:
    """All tilings of the layer, those of promise first."""
    return tilings(forms_of(layer, target), layer.line, layer.outputs, layer.depth, math.prod(layer.taps))


def cycles_of(layer: Layer, tiling: Tiling) -> float:
    """Of a line, as far as an estimate goes."""
    return tiling.cycles(layer.line, layer.outputs, math.prod(layer.taps) * tiling.form.units(layer.depth))
