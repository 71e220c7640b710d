"""The passes that bring every exporter's graph to one form, before anything is quantized."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.ir.graph import Graph
from qcomp.passes.base import Pass, PassGroup
from qcomp.passes.common_subexpressions import CommonSubexpressions
from qcomp.passes.conv_transpose_to_conv import ConvTransposeToConv
from qcomp.passes.dead_code import DeadCode
from qcomp.passes.fold_affine_chains import FoldAffineChains
from qcomp.passes.fold_constants import FoldConstants
from qcomp.passes.fuse_batch_norm import FuseBatchNorm
from qcomp.passes.fuse_bias import FuseBias
from qcomp.passes.fuse_dynamic_quantize import FuseDynamicQuantize
from qcomp.passes.global_pooling import GlobalPooling
from qcomp.passes.hoist_weight_movement import HoistWeightMovement
from qcomp.passes.manager import run_passes
from qcomp.passes.matmul_to_gemm import MatmulToGemm
from qcomp.passes.normalize_gemm import NormalizeGemm
from qcomp.passes.normalize_pads import NormalizePads
from qcomp.passes.recognize_activations import RecognizeActivations
from qcomp.passes.recognize_attention import RecognizeAttention
from qcomp.passes.recognize_layer_norm import RecognizeLayerNorm
from qcomp.passes.recognize_softmax import RecognizeSoftmax
from qcomp.passes.remove_no_ops import RemoveNoOps
from qcomp.passes.reorder_reshapes import ReorderReshapes
from qcomp.passes.squeeze_excite import SqueezeExcite

_STEPS: tuple[Pass, ...] = (
    HoistWeightMovement(),
    FoldConstants(),
    RemoveNoOps(),
    CommonSubexpressions(),
    # Recognition comes before arithmetic is merged: afterwards the pieces are no longer apart.
    FuseDynamicQuantize(),
    RecognizeActivations(),
    RecognizeLayerNorm(),
    RecognizeSoftmax(),
    RecognizeAttention(),
    NormalizePads(),
    GlobalPooling(),
    FuseBatchNorm(),
    NormalizeGemm(),
    MatmulToGemm(),
    FuseBias(),
    FoldAffineChains(),
    ConvTransposeToConv(),
    SqueezeExcite(),
    ReorderReshapes(),
    DeadCode(),
)


@dataclass(frozen=True)
class Canonicalize(PassGroup):
    """All canonicalization passes, to a fixed point.

    before:
        %c: f32[1,8,4,4] = conv2d(%x, %w)
        %n: f32[1,8,4,4] = batch_norm(%c, %scale, %bias, %mean, %var)
        %s: f32[1,8,4,4] = sigmoid(%n)
        %y: f32[1,8,4,4] = mul(%s, %n)
    after:
        %n: f32[1,8,4,4] = conv2d(%x, %w.1, %bias.1)
        %y: f32[1,8,4,4] = silu(%n)
    """

    name = "canonicalize"
    exact = False
    tolerance = 1e-4

    def steps(self) -> tuple[Pass, ...]:
        return _STEPS


def canonicalization() -> list[Pass]:
    """The pipeline that `run_passes` takes."""
    return [Canonicalize()]


def canonicalize(graph: Graph) -> Graph:
    """The canonical form of a graph; the given one stays."""
    return run_passes(graph, canonicalization())
