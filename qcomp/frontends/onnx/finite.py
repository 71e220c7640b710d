"""Weights must be numbers: a NaN or an infinity in them spoils every result, and no scale covers it."""

from __future__ import annotations

import numpy as np

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph

# Ops that multiply what they compute by constants.  Others may hold infinities on purpose: masks, limits of clips.
_WEIGHTED = frozenset(
    {"conv2d", "conv_transpose2d", "gemm", "matmul", "batch_norm", "layer_norm", "instance_norm", "fake_quant"}
)


def check_weights(graph: Graph) -> None:
    """QcompError, naming node and tensor, for a weight that is NaN or infinite."""
    for node in graph.nodes:
        if node.op.name not in _WEIGHTED:
            continue
        for value in node.inputs:
            if value is None or not value.is_constant or not value.dtype.is_float:
                continue
            bad = int(np.count_nonzero(~np.isfinite(value.array)))
            if bad:
                raise QcompError(
                    f"{bad} of its {value.array.size} numbers are NaN or infinite",
                    where=f"{node.op.name} {node.name!r}: tensor {value.name!r}",
                    fix="train or export the model again",
                )
