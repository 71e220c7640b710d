"""The accuracy gate: limits that a person sets, and whether an artifact keeps them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qcomp.errors import QcompError
from qcomp.reports.compare.agreement import Decisions, OutputFigures


@dataclass(frozen=True)
class Limits:
    """What is allowed; None where nothing was asked.  Shares are between 0 and 1."""

    max_drop: float | None = None
    min_agreement: float | None = None
    min_sqnr_db: float | None = None

    def __bool__(self) -> bool:
        return any(v is not None for v in (self.max_drop, self.min_agreement, self.min_sqnr_db))


@dataclass(frozen=True)
class Check:
    """One limit: what was asked, what was found (None: no error at all), and whether it is kept."""

    name: str
    limit: float
    found: float | None
    passed: bool


def parse_share(option: str, text: str) -> float:
    """`1%` or `0.01` -> 0.01; QcompError for what is not between 0 and 100 %."""
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = math.nan
    if not 0.0 <= share <= 1.0:
        raise QcompError(f"{text!r} is no share", where=option, fix="write 1% or 0.01")
    return share


def check_limits(limits: Limits, decided: Decisions, outputs: tuple[OutputFigures, ...]) -> tuple[Check, ...]:
    """Every limit that was asked, checked on counts, so that rounding of shares decides nothing.

    QcompError for a limit on what was not measured.
    """
    checks = []
    if limits.max_drop is not None:
        if decided.float_right is None or decided.int8_right is None:
            raise QcompError("accuracy needs labels", where="--max-drop", fix="give --labels FILE, or --min-agreement")
        lost = decided.float_right - decided.int8_right
        checks.append(Check("max_drop", limits.max_drop, decided.drop, lost <= limits.max_drop * decided.total + 1e-9))
    if limits.min_agreement is not None:
        if not decided.total:
            raise QcompError("the first output decides nothing", where="--min-agreement", fix="give --min-sqnr instead")
        enough = decided.equal >= limits.min_agreement * decided.total - 1e-9
        checks.append(Check("min_agreement", limits.min_agreement, decided.agreement, enough))
    if limits.min_sqnr_db is not None:
        worst = min((o.sqnr_db for o in outputs if o.sqnr_db is not None), default=None)
        checks.append(Check("min_sqnr_db", limits.min_sqnr_db, worst, worst is None or worst >= limits.min_sqnr_db))
    return tuple(checks)
