"""Adjustments stay only where the outputs of the whole model are not the worse for them."""

from __future__ import annotations

import layered_networks
import numpy as np
import pytest

from qcomp.compiler import canonical
from qcomp.ir import Graph
from qcomp.passes.manager import run_passes
from qcomp.passes.quantization_plan import plan_quantization
from qcomp.quantize.grids import grid_passes
from qcomp.quantize.inputs import InputSpec
from qcomp.quantize.quality import Quality
from qcomp.quantize.refinement import Refinement, evenly
from qcomp.quantize.samples import samples_of
from qcomp.quantize.trial import Trial, trial_samples, tried

DATA = layered_networks.samples((layered_networks.CHANNELS,), 40)
SAMPLES = [{"x": row[None]} for row in DATA]


def pair() -> tuple[Graph, Graph]:
    exact = canonical(layered_networks.with_outlier())
    ranges = {v.name: (-900.0, 900.0) if v.name == "spread.y" else (-9.0, 9.0) for v in plan_quantization(exact).points}
    return exact, run_passes(exact, grid_passes(ranges))


def helpful(exact: Graph, quantized: Graph) -> np.ndarray:
    """Minus the mean error of the last layer."""
    from qcomp.quantize.float_runs import outputs_on

    (a, b) = (np.concatenate([o[0] for o in outputs_on(g, SAMPLES, 1)]) for g in (exact, quantized))
    return np.asarray((a - b).mean(axis=0), np.float32)


def test_a_bias_that_makes_the_outputs_worse_is_left_out() -> None:
    exact, quantized = pair()
    found = Refinement(biases={"last.y": np.full(5, 40.0, np.float32)})
    trial = tried(exact, quantized, found, SAMPLES)
    assert trial.kept == Refinement() and trial.gain_db > trial.error_db > 0
    (line,) = Quality((), (), found, trial).lines()
    assert line.startswith("biases left as they were: corrected, the model's outputs have ")


def test_a_bias_that_helps_stays() -> None:
    exact, quantized = pair()
    found = Refinement(biases={"last.y": helpful(exact, quantized)})
    assert tried(exact, quantized, found, SAMPLES) == Trial(found)


def test_weights_stay_where_only_the_biases_are_to_blame() -> None:
    exact, quantized = pair()
    weights = {"last.y": exact.value("last.w").array * np.float32(1.0001)}
    found = Refinement(biases={"last.y": np.full(5, 40.0, np.float32)}, weights=weights)
    kept = tried(exact, quantized, found, SAMPLES).kept
    assert not kept.biases


def test_one_sample_decides_nothing() -> None:
    exact, quantized = pair()
    found = Refinement(biases={"last.y": np.full(5, 40.0, np.float32)})
    assert tried(exact, quantized, found, SAMPLES[:1]).kept is found


@pytest.mark.parametrize(("total", "used", "expected"), [(40, 16, 24), (20, 16, 20), (300, 16, 64), (8, 8, 8)])
def test_samples_that_judge_are_others_if_there_are_enough(total: int, used: int, expected: int) -> None:
    data = np.arange(total * 16, dtype=np.float32).reshape(total, 16)
    samples = samples_of(data, (InputSpec("x", np.dtype(np.float32), (1, 16)),))
    found = trial_samples(canonical(layered_networks.with_outlier()), samples, used)
    assert len(found) == expected
    rows = {int(sample["x"][0, 0]) // 16 for sample in found}
    assert expected == total or not rows & evenly(total, used)
