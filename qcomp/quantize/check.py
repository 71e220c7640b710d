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


@dataclass(frozen=True)
class Finding:
    """One doubt: a stable code, the tensor it is about ("" for the whole set), and a line to read."""

    code: str
    tensor: str
    message: str


def check_calibration(calibration: Calibration) -> tuple[Finding, ...]:
    """Doubts about a calibration set, worst first.

    Codes: few-samples, constant-input, saturated-input, no-values, moving-range.
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
    if calibration.samples >= QUARTERS:
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
