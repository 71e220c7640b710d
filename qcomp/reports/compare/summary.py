"""A comparison in words: the verdict, the rows before and after, and the layers that err most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qcomp.reports.compare.gate import Check
from qcomp.reports.compare.layers import EXACT_DB
from qcomp.reports.compare.result import Comparison, StepFigures

#: What a limit is called, and how its numbers are written.
_CHECKS = {
    "max_drop": ("accuracy lost", "at most", "points"),
    "min_agreement": ("agreement", "at least", "share"),
    "min_sqnr_db": ("signal to noise of the worst output", "at least", "dB"),
}


_UNITS: dict[str, Callable[[float], str]] = {
    "points": lambda share: f"{100 * share:.2f} points",
    "share": lambda share: percent(share),
    "dB": lambda value: f"{value:.1f} dB",
}


@dataclass(frozen=True)
class Row:
    """One figure before and after, as text; `note` says how it was found.  `better` is None for no judgement."""

    name: str
    before: str
    after: str
    change: str
    note: str = ""
    better: bool | None = None

    @property
    def cells(self) -> tuple[str, str, str, str]:
        return self.name, self.before, self.after, self.change


def verdict(found: Comparison) -> str:
    """One sentence: is it as good, how much faster and smaller."""
    decided, name = found.decided, found.precision
    if decided.drop is not None and decided.float_top1 is not None and decided.int8_top1 is not None:
        lost = abs(decided.drop) * 100
        moved = f"{name} {'loses' if decided.drop > 0 else 'gains'} {lost:.2f} points of accuracy"
        good = f"{moved} ({percent(decided.float_top1)} to {percent(decided.int8_top1)})"
        if not lost:
            good = f"{name} keeps the accuracy of {percent(decided.float_top1)}"
    elif decided.agreement is not None:
        good = f"{name} decides as the model does in {percent(decided.agreement)} of {decided.total} decisions"
    else:
        worst = min((o.sqnr_db for o in found.outputs if o.sqnr_db is not None), default=None)
        good = f"{name} gives the model's numbers" if worst is None else f"{name} is {worst:.1f} dB above its noise"
    speed = f"{found.speedup:.1f} times faster" if found.speedup >= 1 else f"{1 / found.speedup:.1f} times slower"
    size = found.float_side.disk_bytes / found.int8_side.disk_bytes
    smaller = f"{size:.1f} times smaller" if size >= 1 else f"{1 / size:.1f} times larger"
    gate = "" if not found.checks else "; every limit is kept" if found.passed else "; NOT within the limits"
    return f"{good}, {speed}, {smaller}{gate}."


def rows(found: Comparison) -> list[Row]:
    """Figures before and after, the most wanted first; what was not measured is left out."""
    before, after, decided = found.float_side, found.int8_side, found.decided
    table: list[Row] = []
    if decided.float_top1 is not None and decided.int8_top1 is not None and decided.drop is not None:
        change = f"{-100 * decided.drop:+.2f} points" if decided.drop else "as before"
        table.append(
            Row("top-1", percent(decided.float_top1), percent(decided.int8_top1), change,
                f"{decided.total} labels", decided.drop <= 0)
        )  # fmt: skip
    if decided.agreement is not None:
        table.append(
            Row("agreement", "", percent(decided.agreement), "", f"{decided.equal} of {decided.total} decisions")
        )
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    table += [
        _less("latency", before.median_ms, after.median_ms, milliseconds_text, "faster", "slower",
              f"median of runs in turns, {threads}"),
        _less("file", before.disk_bytes, after.disk_bytes, bytes_text, "smaller", "larger", "on disk"),
    ]  # fmt: skip
    if before.resident is not None and after.resident is not None:
        note = f"most that a new process grew by; arena and weights: {bytes_text(after.memory_bytes or 0)}"
        table.append(
            _less("memory", before.resident.peak, after.resident.peak, bytes_text, "less", "more", note)
        )
    table += [
        _less("bytes moved", before.cost.bytes_moved, after.cost.bytes_moved, bytes_text, "less", "more",
              "operands and results of a run"),
        _less("energy, estimated", before.cost.energy_uj, after.cost.energy_uj, energy_text, "less", "more",
              "operations and bytes times published picojoules"),
    ]  # fmt: skip
    return table


def _less(
    name: str, before: float, after: float, text: Callable[[float], str], good: str, bad: str, note: str
) -> Row:
    """A row of a figure of which less is better."""
    if before <= 0 or after <= 0:
        return Row(name, text(before), text(after), "", note)
    ratio = before / after
    change = f"{ratio:.2f}x {good}" if ratio >= 1 else f"{1 / ratio:.2f}x {bad}"
    return Row(name, text(before), text(after), change, note, ratio >= 1)


def check_text(check: Check) -> str:
    """`gate: accuracy lost 0.52%, at most 1%: kept`."""
    name, bound, unit = _CHECKS[check.name]
    write = _UNITS[unit]
    found = "exact" if check.found is None else write(check.found)
    return f"gate: {name} {found}, {bound} {write(check.limit)}: {'kept' if check.passed else 'NOT kept'}"


def worst_layers(found: Comparison) -> list[StepFigures]:
    """Steps with products by the error that they add alone, the worst first; then the other measured ones."""
    measured = [s for s in found.steps if s.error is not None and s.error.isolated_db is not None and _computes(s)]
    return sorted(measured, key=lambda s: (s.error.isolated_db or 0.0, s.name) if s.error is not None else (0.0, ""))


def _computes(step: StepFigures) -> bool:
    """Whether a step has a grid of its own to err on: it makes products, or functions of integers."""
    return step.op.startswith("q") or step.op == "table"


def milliseconds_text(milliseconds: float) -> str:
    """`0.0213` -> "21.3 us", `2.13` -> "2.13 ms"."""
    return f"{1000 * milliseconds:.1f} us" if milliseconds < 0.1 else f"{milliseconds:.3g} ms"


def energy_text(microjoules: float) -> str:
    return f"{microjoules:.1f} uJ" if microjoules < 1000 else f"{microjoules / 1000:.2f} mJ"


def decibels_text(decibels: float | None) -> str:
    """`34.5 dB`, "exact" beyond what float32 tells apart, "not known" for None."""
    if decibels is None:
        return "not known"
    return "exact" if decibels >= EXACT_DB else f"{decibels:.1f} dB"


def percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def bytes_text(count: float) -> str:
    """`1536` -> "1.5 KiB"."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
