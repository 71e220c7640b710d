"""Is the calibration set any good?  Each doubt is one line that a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.quantize.calibration import Calibration, Range
from qcomp.quantize.minmax import Extremes
from qcomp.quantize.observers import QUARTERS, Observer

FEW_SAMPLES = 32
# Share (and number) of an input's values at its very end from which on it looks clipped.
SATURATED_SHARE = 0.05
SATURATED_LEAST = 16
# Growth of a range in the last quarter, as a share of its width, from which on it has not settled.
MOVING_SHARE = 0.05
# Share of a range that one sample alone reaches, from which on it drives the range.
LONE_SHARE = 0.2
LONE_LEAST = 8  # samples: among fewer, one always stands out


@dataclass(frozen=True)
class Finding:
    """One doubt: a stable code, the tensor it is about ("" for the whole set), and a line to read."""

    code: str
    tensor: str
    message: str


def check_calibration(calibration: Calibration) -> tuple[Finding, ...]:
    """Doubts about a calibration set, worst first.

    Codes: few-samples, constant-input, saturated-input, no-values, lone-sample, unsettled-ranges, moving-range.
    """
    findings = []
    if calibration.samples < FEW_SAMPLES:
        count = "1 calibration sample" if calibration.samples == 1 else f"{calibration.samples} calibration samples"
        findings.append(
            Finding(
                "few-samples",
                "",
                f"{count}; give at least {FEW_SAMPLES}, better 64 to 512",
            )
        )
    inputs = {name: calibration.observers[name] for name in calibration.inputs}
    findings += [_constant(name) for name, observer in inputs.items() if _is_constant(observer, calibration.samples)]
    for name, observer in inputs.items():
        findings += _saturated(name, observer.extremes)
    for name, observer in calibration.observers.items():
        if observer.extremes.count + observer.infinite_masks == 0:
            findings.append(Finding("no-values", name, f"{name} was empty in every sample; its range is unknown"))
    findings += lone_samples(calibration)
    if calibration.samples >= QUARTERS:
        findings += _unsettled(calibration)
        moving = [f for name, observer in calibration.observers.items() for f in _moving(name, observer)]
        findings += [finding for _, finding in sorted(moving, key=lambda pair: -pair[0])]
    return tuple(findings)


def outside(ranges: Mapping[str, Range], inputs: Mapping[str, NDArray[Any]]) -> tuple[Finding, ...]:
    """Inputs with values beyond the range seen in calibration (code outside-range); NaN counts as outside."""
    findings = []
    for name, array in inputs.items():
        if name not in ranges or array.size == 0 or array.dtype.kind not in "fiub":
            continue
        seen = ranges[name]
        beyond = ~((array >= seen.lo) & (array <= seen.hi))
        count = int(np.count_nonzero(beyond))
        if count:
            worst = array[beyond]
            findings.append(
                Finding(
                    "outside-range",
                    name,
                    f"{name}: {count} of {array.size} values ({count / array.size:.2%}) lie outside the calibrated "
                    f"range [{seen.lo:.6g}, {seen.hi:.6g}], from {worst.min():.6g} to {worst.max():.6g}; "
                    "calibrate with samples like these",
                )
            )
    return tuple(findings)


def _is_constant(observer: Observer, samples: int) -> bool:
    extremes = observer.extremes
    return samples > 1 and extremes.count > 0 and extremes.lo == extremes.hi


def _constant(name: str) -> Finding:
    return Finding("constant-input", name, f"{name} has the same value everywhere in every sample; give real data")


def _saturated(name: str, extremes: Extremes) -> list[Finding]:
    # A mask or a flag: the ends are all there is.
    if extremes.count == 0 or extremes.lo == extremes.hi or (extremes.lo, extremes.hi) in ((0.0, 1.0), (-1.0, 1.0)):
        return []
    high, low = extremes.at_hi / extremes.count, extremes.at_lo / extremes.count
    # Black borders and backgrounds are common: many values at the low end mean little by themselves.
    if high < SATURATED_SHARE or extremes.at_hi < SATURATED_LEAST:
        return []
    return [
        Finding(
            "saturated-input",
            name,
            f"{name}: {high:.1%} of the values equal its largest, {extremes.hi:.6g}, and {low:.1%} its smallest, "
            f"{extremes.lo:.6g}; check that the data is not clipped",
        )
    ]


def lone_samples(calibration: Calibration) -> list[Finding]:
    """Samples that alone set an end of chosen ranges: without them the ranges would be narrower by a fifth or more.

    One finding a sample, those of most tensors first.  A method that clips outliers is not driven by them.
    """
    driven: dict[int, list[tuple[float, str, str]]] = {}
    for name, observer in calibration.observers.items():
        for share, sample, text in _lone_ends(calibration, name, observer):
            driven.setdefault(sample, []).append((share, name, text))
    findings = []
    for sample, ends in sorted(driven.items(), key=lambda item: (-len(item[1]), item[0])):
        share, name, text = max(ends)
        tensors = len({tensor for _, tensor, _ in ends})
        more = f", and an end of {tensors - 1} more ranges" if tensors > 2 else ", and one of another" * (tensors - 1)
        findings.append(
            Finding(
                "lone-sample", name,
                f"sample {sample} alone sets {text} of {name} (without it {share:.0%} narrower){more}; check that it "
                "is typical, or give more like it",
            )
        )  # fmt: skip
    return findings


def _lone_ends(calibration: Calibration, name: str, observer: Observer) -> list[tuple[float, int, str]]:
    """(share of the range that goes without it, sample, what it sets) for each end that one sample alone reaches."""
    seen = observer.extremes
    if calibration.samples < LONE_LEAST or seen.count == 0 or seen.hi <= seen.lo or observer.mask_margin is not None:
        return []
    least = LONE_SHARE * (seen.hi - seen.lo)
    ends = [(observer.leaders.low, "the low end"), (observer.leaders.high, "the high end")]
    if not any(leader.sample >= 0 and leader.value - leader.others >= least for leader, _ in ends):
        return []  # the range is only worked out where it may matter
    lo, hi = observer.range(calibration.method)
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    found = []
    for (leader, what), end in zip(ends, (-lo, hi), strict=True):
        share = (end - max(leader.others, 0.0)) / (hi - lo) if leader.sample >= 0 and hi > lo else 0.0
        if share >= LONE_SHARE:
            found.append((share, leader.sample, f"{what}, {end if what == 'the high end' else -end:.6g},"))
    return found


def ranges_by_samples(calibration: Calibration) -> tuple[int, dict[int, int]]:
    """How many tensors' seen extremes are narrower by a twentieth or more with the first quarters alone.

    Returns the number of tensors, and for 1, 2 and 3 quarters how many of them are narrower.
    """
    spans = [observer.quarters for observer in calibration.observers.values() if observer.extremes.count]
    narrower = {}
    for quarters in range(1, QUARTERS):
        narrower[quarters] = sum(_growth(Extremes.all(q[:quarters]), Extremes.all(q)) >= MOVING_SHARE for q in spans)
    return len(spans), narrower


def _growth(part: Extremes, whole: Extremes) -> float:
    """What the whole adds to a part's range, as a share of the whole."""
    if whole.hi <= whole.lo:
        return 0.0
    if not part.count:
        return 1.0
    return (max(part.lo - whole.lo, 0.0) + max(whole.hi - part.hi, 0.0)) / (whole.hi - whole.lo)


def _unsettled(calibration: Calibration) -> list[Finding]:
    total, narrower = ranges_by_samples(calibration)
    if narrower[2] * 2 < total:
        return []
    return [
        Finding(
            "unsettled-ranges", "",
            f"half of the samples would see {narrower[2]} of {total} ranges narrower by 5% or more, a quarter "
            f"{narrower[1]}, three quarters {narrower[3]}: ranges still follow the number of samples; give more",
        )
    ]  # fmt: skip


def _moving(name: str, observer: Observer) -> list[tuple[float, Finding]]:
    before, last = Extremes.all(observer.quarters[:-1]), observer.quarters[-1]
    if before.count == 0 or last.count == 0:
        return []
    total = before.merge(last)
    growth = max(before.lo - total.lo, 0.0) + max(total.hi - before.hi, 0.0)
    share = growth / (total.hi - total.lo) if growth else 0.0
    if share < MOVING_SHARE:
        return []
    return [
        (
            share,
            Finding(
                "moving-range",
                name,
                f"{name}: the last quarter of the samples widened its range by {share:.0%}, from "
                f"[{before.lo:.6g}, {before.hi:.6g}] to [{total.lo:.6g}, {total.hi:.6g}]; give more samples",
            ),
        )
    ]
