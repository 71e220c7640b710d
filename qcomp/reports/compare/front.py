"""The accuracy and latency front that a search found, read from its file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from qcomp.errors import QcompError

_FIX = 'write [{"accuracy": 0.97, "latency_ms": 1.2, "size": 1000000, "label": "..."}]'


@dataclass(frozen=True)
class Candidate:
    """One artifact of a search: accuracy as a share, latency, bytes on disk, and what it is called."""

    accuracy: float
    latency_ms: float
    size: int
    label: str


def read_front(path: Path) -> tuple[Candidate, ...]:
    """A JSON list of objects with accuracy, latency_ms, size and label; QcompError for anything else."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise QcompError(f"cannot be read: {error.strerror}", where=str(path), fix=_FIX) from None
    except (ValueError, RecursionError):
        raise QcompError("this is no JSON", where=str(path), fix=_FIX) from None
    if not isinstance(rows, list) or not rows:
        raise QcompError("this is no list of candidates", where=str(path), fix=_FIX)
    found = []
    for index, row in enumerate(rows):
        try:
            one = Candidate(float(row["accuracy"]), float(row["latency_ms"]), int(row["size"]), str(row["label"]))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise QcompError(f"candidate {index} lacks a field or has one of another type", where=str(path), fix=_FIX
            ) from None  # fmt: skip
        if not (math.isfinite(one.accuracy) and math.isfinite(one.latency_ms)) or one.latency_ms < 0:
            raise QcompError(f"candidate {index} has a number out of range", where=str(path), fix=_FIX)
        found.append(one)
    return tuple(found)


def undominated(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """Those that no other one beats in accuracy at no more latency, by latency."""
    best: list[Candidate] = []
    for one in sorted(candidates, key=lambda c: (c.latency_ms, -c.accuracy, c.label)):
        if not best or one.accuracy > best[-1].accuracy:
            best.append(one)
    return tuple(best)
