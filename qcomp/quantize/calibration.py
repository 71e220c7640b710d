"""What calibration found: the observed values of each tensor, to merge, save, and read ranges from."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import QcompError
from qcomp.quantize.histogram import Histogram
from qcomp.quantize.leaders import Leader, Leaders
from qcomp.quantize.minmax import Extremes, MinMax
from qcomp.quantize.observers import QUARTERS, Method, Observer, method_named

FORMAT = 1


@dataclass(frozen=True)
class Range:
    """The real values that a tensor's integers have to cover, both ends included."""

    lo: float
    hi: float


@dataclass(frozen=True)
class Calibration(Mapping[str, Range]):
    """Tensor name -> Range by `method`; `observers` holds the statistics behind it.

    `observers` has the tensors asked for and the model's inputs, `inputs` the names of the latter.
    """

    samples: int
    method: Method
    inputs: tuple[str, ...]
    observers: Mapping[str, Observer]

    def __getitem__(self, tensor: str) -> Range:
        return Range(*self.observers[tensor].range(self.method))

    def __iter__(self) -> Iterator[str]:
        return iter(self.observers)

    def __len__(self) -> int:
        return len(self.observers)

    def ranges(self, method: str | Method | None = None) -> dict[str, Range]:
        """Every tensor's range; another `method` than the calibration's own needs its histograms.

        Tensors of which no value was seen (empty ones) are left out.
        """
        chosen = self.method if method is None else method_named(method)
        return {
            name: Range(*observer.range(chosen))
            for name, observer in self.observers.items()
            if observer.extremes.count + observer.infinite_masks
        }

    def extremes(self) -> dict[str, tuple[float, float]]:
        """The smallest and largest number seen of every tensor that has finite ones, masked values as in its range."""
        return {name: observer.range(MinMax()) for name, observer in self.observers.items() if observer.extremes.count}

    def merge(self, other: Calibration) -> Calibration:
        """The calibration with both sample sets: all but the quarters is exactly that of one run over both."""
        if set(self.observers) != set(other.observers) or self.inputs != other.inputs:
            odd = sorted(set(self.observers) ^ set(other.observers))
            raise QcompError(
                f"cannot merge calibrations of different tensors{': ' + odd[0] + ' is in one only' if odd else ''}",
                fix="calibrate both with the same model",
            )
        merged = {name: observer.merge(other.observers[name]) for name, observer in self.observers.items()}
        for name, observer in merged.items():
            theirs = other.observers[name].leaders.shifted(self.samples)
            observer.leaders = self.observers[name].leaders.merge(theirs)
        return Calibration(self.samples + other.samples, self.method, self.inputs, merged)

    def save(self, path: str | Path) -> None:
        """Write JSON; equal calibrations give equal bytes."""
        content = {
            "format": FORMAT,
            "kind": "qcomp calibration",
            "samples": self.samples,
            "method": str(self.method),
            "inputs": list(self.inputs),
            "tensors": {name: _pack(observer) for name, observer in self.observers.items()},
        }
        text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
        Path(path).write_text(text, encoding="utf-8", newline="\n")

    @staticmethod
    def load(path: str | Path) -> Calibration:
        """Read what `save` wrote; QcompError naming the file if it is missing or something else."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise QcompError(f"cannot read ({error.strerror})", where=str(path)) from None
        except ValueError:
            content = None
        if not isinstance(content, dict) or content.get("kind") != "qcomp calibration":
            raise QcompError("not a calibration file", where=str(path), fix="give a file that calibration saved")
        if content.get("format") != FORMAT:
            raise QcompError(
                f"calibration format {content.get('format')}, expected {FORMAT}",
                where=str(path),
                fix="calibrate again with this version",
            )
        try:
            method = method_named(content["method"])
            observers = {name: _unpack(name, method, packed) for name, packed in content["tensors"].items()}
            return Calibration(int(content["samples"]), method, tuple(content["inputs"]), observers)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, binascii.Error) as error:
            raise QcompError(f"damaged calibration file ({error!r})", where=str(path), fix="calibrate again") from None


def _pack(observer: Observer) -> dict[str, Any]:
    packed: dict[str, Any] = {
        "quarters": [[q.count, q.lo, q.hi, q.at_lo, q.at_hi] if q.count else [] for q in observer.quarters]
    }
    if observer.leaders != Leaders():
        packed["leaders"] = [_pack_leader(leader) for leader in (observer.leaders.low, observer.leaders.high)]
    if observer.histogram is not None:
        packed["histogram"] = [_pack_counts(observer.histogram.row(sign)) for sign in (0, 1)]
    if observer.mask_margin is not None:
        packed["mask_margin"] = observer.mask_margin
        packed["infinite_masks"] = observer.infinite_masks
    return packed


def _unpack(name: str, method: Method, packed: dict[str, Any]) -> Observer:
    observer = Observer(name, method, histogram=False, mask_margin=packed.get("mask_margin"))
    observer.quarters = [Extremes(*quarter) for quarter in packed["quarters"]]
    if len(observer.quarters) != QUARTERS:
        raise ValueError("quarters")
    observer.infinite_masks = int(packed.get("infinite_masks", 0))
    if "leaders" in packed:
        low, high = map(_unpack_leader, packed["leaders"])
        observer.leaders = Leaders(low, high)
    if "histogram" in packed:
        rows = [_unpack_counts(row) for row in packed["histogram"]]
        counts = np.zeros((2, max(1, *(row.size for row in rows))), np.int64)
        for sign, row in enumerate(rows):
            counts[sign, : row.size] = row
        observer.histogram = Histogram(counts)
    return observer


def _pack_leader(leader: Leader) -> list[Any]:
    return [leader.value, leader.sample, leader.others if np.isfinite(leader.others) else None]


def _unpack_leader(packed: list[Any]) -> Leader:
    value, sample, others = packed
    return Leader(float(value), int(sample), float("-inf") if others is None else float(others))


def _pack_counts(counts: NDArray[np.int64]) -> str:
    """Base64 of the counts as LEB128 numbers, leading zeros cut off: "first bin:text"."""
    filled = np.flatnonzero(counts)
    first = int(filled[0]) if filled.size else 0
    values = counts[first:].astype(np.uint64)
    length = np.ones(values.size, np.int64)
    for bits in range(7, 64, 7):
        length += values >= np.uint64(1 << bits)
    end = np.cumsum(length)
    data = np.zeros(int(end[-1]) if end.size else 0, np.uint8)
    for digit in range(int(length.max(initial=0))):
        has = length > digit
        low = (values[has] >> np.uint64(7 * digit)) & np.uint64(0x7F)
        more = np.where(length[has] > digit + 1, 0x80, 0).astype(np.uint8)
        data[(end - length)[has] + digit] = low.astype(np.uint8) | more
    return f"{first}:{base64.b64encode(data.tobytes()).decode('ascii')}"


def _unpack_counts(packed: str) -> NDArray[np.int64]:
    first, _, text = packed.partition(":")
    data = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    end = np.flatnonzero(data < 0x80) + 1
    if data.size and (end.size == 0 or end[-1] != data.size):
        raise ValueError("cut off histogram")
    start = np.concatenate([[0], end[:-1]]).astype(np.int64)[: end.size]
    values = np.zeros(end.size, np.int64)
    for digit in range(int((end - start).max(initial=0))):
        has = end - start > digit
        values[has] |= (data[start[has] + digit] & 0x7F).astype(np.int64) << (7 * digit)
    return np.concatenate([np.zeros(int(first), np.int64), values])
