"""Observers: what is remembered of a tensor's values, in memory that does not grow with their number.

An observer is a state (`update`, `merge`: exact, order-independent) and a method that reads a range from it.
Methods are frozen dataclasses in the table METHODS; adding a row is the whole change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import QcompError
from qcomp.quantize.auto import Auto
from qcomp.quantize.entropy import Entropy
from qcomp.quantize.histogram import Density, Histogram
from qcomp.quantize.leaders import Leaders
from qcomp.quantize.masks import PLAIN_MASK, split_mask
from qcomp.quantize.minmax import Extremes, MinMax
from qcomp.quantize.mse import Mse
from qcomp.quantize.percentile import Percentile

QUARTERS = 4


class Method(Protocol):
    """A way to choose a range: `str(method)` is its name with its options, as `method_named` reads it."""

    @property
    def name(self) -> str: ...

    def range(self, density: Density) -> tuple[float, float]: ...


METHODS: dict[str, Callable[..., Method]] = {
    "auto": Auto,
    "minmax": MinMax,
    "percentile": Percentile,
    "entropy": Entropy,
    "mse": Mse,
}


def method_named(spec: str | Method) -> Method:
    """The method "auto", "minmax", "percentile", "percentile:99.9", "entropy" or "mse"; QcompError for others."""
    if not isinstance(spec, str):
        return spec
    name, colon, option = spec.partition(":")
    if name not in METHODS or (colon and name != "percentile"):
        raise QcompError(f"unknown calibration method {spec!r}", fix=f"use one of {', '.join(METHODS)}")
    if not colon:
        return METHODS[name]()
    try:
        return Percentile(float(option))
    except ValueError:
        raise QcompError(f"{option!r} is not a percentile", fix="use for example percentile:99.99") from None


class Observer:
    """The values of one tensor.

    `tensor` names it in errors.  With `method` minmax no histogram is kept unless `histogram` asks for it.
    `mask_margin`: the tensor leads to a Softmax (see qcomp.quantize.masks), so −inf is allowed in it, and
    masked values are represented by the lowest other value minus this margin.
    """

    def __init__(
        self,
        tensor: str = "",
        method: str | Method = "minmax",
        *,
        histogram: bool | None = None,
        mask_margin: float | None = None,
    ) -> None:
        self.tensor = tensor
        self.method = method_named(method)
        self.mask_margin = mask_margin
        keep = self.method.name != "minmax" or mask_margin is not None if histogram is None else histogram
        self.histogram = Histogram() if keep else None
        self.quarters = [Extremes()] * QUARTERS
        self.infinite_masks = 0
        self.leaders = Leaders()

    def update(self, array: NDArray[np.generic], quarter: int = 0, sample: int | None = None) -> None:
        """Take in an array of any shape and real dtype; values count as float32.

        `quarter` (0 to 3): which quarter of the calibration set the array belongs to; the extremes are kept for
        each, which shows whether the range still moves at the end.  `sample`: its number in the set, where it is to be
        known which sample holds an end of the range.  QcompError, naming the tensor, for NaN and infinities (but −inf
        in a mask), and for values that are not real numbers.
        """
        values = self._as_float(np.asarray(array))
        extremes = Extremes.of(values)
        if extremes.count and not (np.isfinite(extremes.lo) and np.isfinite(extremes.hi)):
            values = self._finite(values)
            extremes = Extremes.of(values)
        self.quarters[quarter] = self.quarters[quarter].merge(extremes)
        if sample is not None:
            self.leaders = self.leaders.merge(Leaders.of(extremes, sample))
        if self.histogram is not None:
            self.histogram.update(values)

    def merge(self, other: Observer) -> Observer:
        """An observer of both streams, whose samples are numbered together; neither operand changes."""
        if (self.histogram is None) != (other.histogram is None) or self.mask_margin != other.mask_margin:
            raise QcompError(
                "cannot merge calibrations that kept different things",
                where=self.tensor,
                fix="calibrate both with the same method and model",
            )
        merged = Observer(self.tensor, self.method, histogram=False, mask_margin=self.mask_margin)
        if self.histogram is not None and other.histogram is not None:
            merged.histogram = self.histogram.merge(other.histogram)
        merged.quarters = [a.merge(b) for a, b in zip(self.quarters, other.quarters, strict=True)]
        merged.infinite_masks = self.infinite_masks + other.infinite_masks
        merged.leaders = self.leaders.merge(other.leaders)
        return merged

    @property
    def extremes(self) -> Extremes:
        """Exact extremes of all finite values, masks included."""
        return Extremes.all(self.quarters)

    @property
    def masked(self) -> int:
        """How many values were told to be masks."""
        if self.mask_margin is None or self.histogram is None:
            return 0
        return self.infinite_masks + split_mask(self.histogram)[1]

    def range(self, method: str | Method | None = None) -> tuple[float, float]:
        """(lo, hi) by `method`, or by the observer's own; QcompError where no value or no histogram is there."""
        chosen = self.method if method is None else method_named(method)
        extremes = self.extremes
        if extremes.count + self.infinite_masks == 0:
            raise QcompError(
                "no value was seen", where=self.tensor, fix="calibrate with samples that reach this tensor"
            )
        if self.mask_margin is not None and self.histogram is not None and self.masked:
            return self._masked_range(chosen, self.histogram, self.mask_margin)
        if chosen.name == "minmax":
            return extremes.lo, extremes.hi
        if self.histogram is None:
            raise QcompError(
                f"ranges by {chosen.name} need histograms",
                where=self.tensor,
                fix=f"calibrate again with method {chosen.name}",
            )
        return chosen.range(self.histogram.density(extremes.lo, extremes.hi))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Observer) and (
            self.tensor,
            str(self.method),
            self.mask_margin,
            self.quarters,
            self.infinite_masks,
            self.histogram,
        ) == (
            other.tensor,
            str(other.method),
            other.mask_margin,
            other.quarters,
            other.infinite_masks,
            other.histogram,
        )

    __hash__ = None  # type: ignore[assignment]

    def _masked_range(self, method: Method, histogram: Histogram, margin: float) -> tuple[float, float]:
        extremes = self.extremes
        body, finite_masks = split_mask(histogram)
        if body.total == 0:
            return -margin, 0.0
        # The histogram knows the extremes of the part without masks to the width of a bin.
        density = body.density(None if finite_masks else extremes.lo, extremes.hi)
        if density.left.size == 1:
            return min(density.lo + (extremes.lo if finite_masks else PLAIN_MASK), 0.0), density.hi
        lo, hi = method.range(density)
        return lo - margin, hi

    def _as_float(self, array: NDArray[np.generic]) -> NDArray[np.float32]:
        if array.dtype.kind not in "fiub":
            raise QcompError(f"values of type {array.dtype} are not numbers", where=self.tensor)
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(array, np.float32)

    def _finite(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        nan, high = int(np.isnan(values).sum()), int(np.isposinf(values).sum())
        masks = np.isneginf(values)
        low = int(masks.sum())
        if nan or high or self.mask_margin is None:
            raise QcompError(
                f"{nan} NaN, {high} +inf and {low} -inf among {values.size} values",
                where=self.tensor,
                fix="repair the model or the calibration data; write an attention mask as -10000, not -inf",
            )
        self.infinite_masks += low
        return values[~masks]
