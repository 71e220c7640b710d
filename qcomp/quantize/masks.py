"""Attention masks: values that only say "nothing here" must not stretch the range of the scores beside them.

A masked score is a score plus −10000, −3.4e38 or −inf.  Softmax turns each of them into zero, and so it does
with any value a few units below the scores.  In the tensors that lead to a Softmax alone, masked values are
therefore told from the scores (they lie beyond a wide empty gap), counted, and represented by the lowest score
minus a margin.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx

from qcomp.quantize.histogram import BINS_PER_OCTAVE, Histogram, bin_edges

# exp(-6) = 1/403 of the row's largest score at worst, below one step of an int8 softmax.
DIRECT_MARGIN = 6.0
# The masked value of a mask that is added to scores later: 64 outweighs any usual spread of scores.
ADDED_MARGIN = 64.0
# What −inf stands for in a mask that holds nothing but one value and −inf.
PLAIN_MASK = -10000.0

_LEAST_MASK = 512.0
_GAP_OCTAVES = 5

_MOVES = frozenset(
    ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
    + ("Expand", "Tile", "Slice", "Split", "Concat", "Gather", "Dropout")
)
_ADDS = frozenset(("Add", "Sum", "Where", "Max"))


def mask_margins(model: onnx.ModelProto) -> dict[str, float]:
    """The tensors that lead to nothing but a Softmax, each with the margin of its masked values.

    DIRECT_MARGIN where only data movement lies between, ADDED_MARGIN where scores are still to be added.
    """
    uses: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            uses[name].append(node)
    outputs = {value.name for value in model.graph.output}
    margins: dict[str, float] = {}
    for node in reversed(model.graph.node):
        for name in node.input:
            if name and name not in margins and name not in outputs:
                found = [_margin(user, name, margins) for user in uses[name]]
                if all(margin is not None for margin in found):
                    margins[name] = max(margin for margin in found if margin is not None)
    return margins


def _margin(user: onnx.NodeProto, name: str, margins: dict[str, float]) -> float | None:
    if user.op_type in ("Softmax", "LogSoftmax"):
        return DIRECT_MARGIN
    beyond = [margins.get(output) for output in user.output if output]
    if not beyond or any(margin is None for margin in beyond):
        return None
    if user.op_type in _MOVES:
        return max(margin for margin in beyond if margin is not None)
    adds = user.op_type in _ADDS and not (user.op_type == "Where" and name == user.input[0])
    return ADDED_MARGIN if adds else None


def split_mask(histogram: Histogram) -> tuple[Histogram, int]:
    """The histogram without its masked values, and their number (0 where there is no clear gap).

    Masked values are those at or below −512 that a gap of five octaves parts from all other magnitudes.
    """
    negative = np.flatnonzero(histogram.row(1))
    far = negative[bin_edges(negative) >= _LEAST_MASK]
    if far.size == 0:
        return histogram, 0
    first = int(far[0])
    near = negative[negative < first]
    top = max(int(near[-1]) if near.size else 0, histogram.row(0).size - 1)
    if first - top < _GAP_OCTAVES * BINS_PER_OCTAVE:
        return histogram, 0
    body = histogram.counts.copy()
    body[1, first:] = 0
    return Histogram(body), int(histogram.counts[1, first:].sum())
