"""What samples say of a float model before grids are chosen: its values, and which channels are better equalized.

Neither depends on which layers will compute on integers, so that a search for a mix of precisions observes once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcomp.ir.graph import Graph
from qcomp.ir.onnx_export import to_onnx
from qcomp.passes.equalize_channels import EqualizeChannels
from qcomp.passes.manager import run_passes
from qcomp.quantize.calibrate import calibrate
from qcomp.quantize.calibration import Calibration
from qcomp.quantize.equalization import Equalized, find_equalizations
from qcomp.quantize.observers import Method
from qcomp.quantize.refinement import refinement_samples
from qcomp.quantize.samples import Samples
from qcomp.quantize.trial import trial_samples

Progress = Callable[[int, int], None]
Observe = Callable[[Graph, Sequence[str]], Calibration]


@dataclass(frozen=True)
class Observed:
    """`calibration` is of the float graph with its channels equalized; `few` are the samples that adjustments of it are
    made from, none where there are to be none, and `held` those that judge them; `tails` names the attention nodes that
    have to stay float32."""

    calibration: Calibration
    few: tuple[Mapping[str, np.ndarray], ...]
    held: tuple[Mapping[str, np.ndarray], ...]
    equalized: tuple[Equalized, ...]
    tails: tuple[str, ...] = ()

    def of(self, points: Sequence[str]) -> Observed:
        """Of some of the tensors, and the model's inputs."""
        kept = dict.fromkeys([*self.calibration.inputs, *points])
        observers = {name: self.calibration.observers[name] for name in kept}
        return replace(self, calibration=replace(self.calibration, observers=observers))

    def equalization(self) -> list[EqualizeChannels]:
        """The pass that makes the graph which was observed of the float graph; none if nothing is to be equalized."""
        factors = {e.value: e.factors for e in self.equalized}
        return [EqualizeChannels(factors)] if factors else []


def observe(
    graph: Graph,
    samples: Samples,
    points: Sequence[str],
    method: str | Method,
    *,
    adjust: bool,
    per_tensor: bool,
    progress: Progress | None = None,
    calibrated: Observe | None = None,
) -> Observed:
    """Observes `points` of a float graph, those that equalization changes as it leaves them.

    adjust: channels, biases and weights may be changed.  `calibrated` observes the float graph elsewhere.
    """
    if calibrated is not None:
        calibration = calibrated(graph, points)
    else:
        calibration = calibrate(to_onnx(graph), samples, points, method, progress)
    few = refinement_samples(graph, samples) if adjust else ()
    held = trial_samples(graph, samples, len(few)) if few else ()
    found = Observed(calibration, few, held, find_equalizations(graph, few, per_tensor))
    scaled = [name for e in found.equalized for name in e.scaled if name in points]
    if not scaled:
        return found
    equalized = run_passes(graph, found.equalization(), verify=False)
    again = calibrate(to_onnx(equalized), samples, scaled, method)
    return replace(found, calibration=replace(calibration, observers={**calibration.observers, **again.observers}))
