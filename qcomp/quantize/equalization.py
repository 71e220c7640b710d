"""Which channels to equalize, and by what factors: those that lower the error of the layers that read them.

A factor for each channel moves from an activation into the weights behind it: s = r^a / w^(1 - a), r and w the
channel's largest activation and weight (SmoothQuant's formula, Xiao et al. 2022; a = 1/2 is cross-layer equalization,
Nagel et al. 2019, on activations that were seen instead of weights).  Each exponent is tried on samples; none is a
choice too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcomp.ir.affine import affine_parameters, weight_scales
from qcomp.ir.graph import Graph, Value
from qcomp.ir.types import Quantization
from qcomp.passes.equalize_channels import Site, equalizable, multiplied
from qcomp.passes.matching import channel_axis, weight_axis
from qcomp.quantize.positions import noise_shares
from qcomp.quantize.replay import Replay, Tensors, run_float

EXPONENTS = (0.5, 0.75, 1.0)
# The error must go down by this share, for other data to see some of it.
_WORTH = 0.8
# A channel gets at most this much finer: what is never seen must not become huge when it appears.
_MOST = 256.0


@dataclass(frozen=True)
class Equalized:
    """What was found for a value: the factors of its channels, and the readers' noise before and after (shares).

    `scaled` names all values that the factors change.
    """

    value: str
    scaled: tuple[str, ...]
    exponent: float
    factors: np.ndarray
    before: float
    after: float


def find_equalizations(
    graph: Graph, samples: Sequence[Mapping[str, np.ndarray]], per_tensor: bool = False
) -> tuple[Equalized, ...]:
    """Values of a float graph whose channels are better divided by factors before they get a grid, by samples."""
    found = []
    replay = Replay(graph, samples)
    for site in equalizable(graph) if samples else ():
        replay.keep(site.value)
        producer = site.value.producer
        assert producer is not None
        replay.advance(producer)
        best = _best(site, replay.held[site.value], per_tensor)
        replay.release(site.value)
        if best is not None:
            found.append(best)
    return tuple(found)


def _best(site: Site, tensors: Tensors, per_tensor: bool) -> Equalized | None:
    candidates = {0.0: np.ones(site.channels)}
    candidates.update((exponent, _factors(site, tensors, exponent)) for exponent in EXPONENTS)
    noises = _noises(site, tensors, tensors, list(candidates.values()), per_tensor)
    exponent, noise = min(zip(candidates, noises, strict=True), key=lambda pair: pair[1])
    if not noise < _WORTH * noises[0] or not _helps_others(site, tensors, exponent, per_tensor):
        return None
    names = tuple(value.name for value in site.scaled)
    return Equalized(site.value.name, names, exponent, candidates[exponent], noises[0], noise)


def _helps_others(site: Site, tensors: Tensors, exponent: float, per_tensor: bool) -> bool:
    """Whether factors and a grid of every other sample are as good for the rest: where few samples were seen, every
    channel fills its grid to the brim, and what comes next is clipped."""
    seen, unseen = tensors[::2], tensors[1::2]
    if not unseen:
        return False
    candidates = [np.ones(site.channels), _factors(site, seen, exponent)]
    plain, equalized = _noises(site, seen, unseen, candidates, per_tensor)
    return equalized < _WORTH * plain


def _factors(site: Site, tensors: Tensors, exponent: float) -> np.ndarray:
    """float64[channels], the largest 1."""
    others = tuple(i for i in range(tensors[0].ndim) if i != site.axis)
    seen = np.max([np.abs(t).max(axis=others, initial=0.0) for t in tensors], axis=0).astype(np.float64)
    weights = np.zeros(site.channels)
    for node in site.readers:
        flat = np.abs(node.input(1).array.astype(np.float64))
        if node.op.name == "conv2d":
            groups = node.call.int("groups")
            largest = flat.reshape(groups, flat.shape[0] // groups, flat.shape[1], -1).max(axis=(1, 3)).reshape(-1)
        else:
            axis = 1 if node.op.name == "gemm" and node.attrs["trans_b"] else 0
            largest = np.moveaxis(flat, axis, 0).reshape(site.channels, -1).max(axis=1)
        weights = np.maximum(weights, largest)
    usable = np.isfinite(seen) & (seen > 0) & (weights > 0)
    factors = np.ones(site.channels)
    factors[usable] = seen[usable] ** exponent / weights[usable] ** (1.0 - exponent)
    if usable.any():
        factors[~usable] = factors[usable].max()
    factors /= factors.max()
    return np.asarray(np.maximum(factors, 1.0 / _MOST))


def _noises(
    site: Site, seen: Tensors, tensors: Tensors, candidates: Sequence[np.ndarray], per_tensor: bool
) -> list[float]:
    """Noise of the readers' results on tensors for each candidate, on a grid over all that was seen, in shares of
    their power, means taken off."""
    part = Graph("site")
    x = part.input(site.value.name, site.value.type)
    exact = [_reader(part, site, index, x, np.ones(site.channels), None) for index in range(len(site.readers))]
    tried = []
    for factors in candidates:
        quantized = _divided(part, site, x, seen, factors)
        tried.append([
            _reader(part, site, index, quantized, factors, per_tensor) for index in range(len(site.readers))
        ])  # fmt: skip
    part.outputs = [*exact, *(value for values in tried for value in values)]
    found = run_float(part, [{site.value.name: tensor} for tensor in tensors])
    totals = [0.0] * len(candidates)
    for index, node in enumerate(site.readers):
        results = [found[values[index].name] for values in tried]
        for i, share in enumerate(noise_shares(found[exact[index].name], results, channel_axis(node))):
            totals[i] += share
    return [total / len(site.readers) for total in totals]


def _divided(part: Graph, site: Site, x: Value, tensors: Tensors, factors: np.ndarray) -> Value:
    """The value over its factors, on a grid over all that was seen of that."""
    shape = tuple(-1 if i == site.axis else 1 for i in range(site.value.type.rank))
    inverse = (1.0 / factors).astype(np.float32).reshape(shape)
    scaled = part.add("mul", [x, part.constant(inverse)]).output
    lo = min(float((tensor * inverse).min()) for tensor in tensors)
    hi = max(float((tensor * inverse).max()) for tensor in tensors)
    return part.add("fake_quant", [scaled], {"quant": Quantization.per_tensor(*affine_parameters(lo, hi))}).output


def _reader(part: Graph, site: Site, index: int, x: Value, factors: np.ndarray, per_tensor: bool | None) -> Value:
    """A reader without its bias on `x`, its weights times the factors and rounded (per_tensor None: as they are)."""
    node = site.readers[index]
    weights = part.constant(multiplied(node, factors).astype(np.float32), "w")
    if per_tensor is not None:
        axis = weight_axis(node)
        scales = weight_scales(weights.array, None if per_tensor else axis)
        quant = Quantization.per_tensor(float(scales[0])) if per_tensor else Quantization.per_channel(scales, axis)
        weights = part.add("fake_quant", [weights], {"quant": quant}).output
    return part.add(node.op.name, [x, weights], dict(node.attrs)).output
