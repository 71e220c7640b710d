"""The search for a mix of precisions, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qcomp.confirmation import Confirmed
    from qcomp.quantize.mixes import Mix, Search


_MOST_NAMES = 6


def search_facts(found: Search, timed: bool, confirmed: Confirmed | None = None) -> dict[str, Any]:
    """What `--json` says of a search; times are null where the target has no rates."""

    def mix(looked_at: Mix) -> dict[str, Any]:
        return {
            "float32_layers": list(looked_at.floats),
            "int16_layers": list(looked_at.words),
            **looked_at.whole.facts(),
            "held": looked_at.held.facts(),
            "milliseconds": looked_at.milliseconds if timed else None,
            "bytes": looked_at.bytes,
            "reaches_goal": looked_at.reached and looked_at.compiled is not False,
            "compiled_reaches_goal": looked_at.compiled,
            "on_front": looked_at in front,
        }

    front = found.front()
    return {
        "goal": str(found.goal),
        "float32": found.float32.facts(),
        "best": mix(found.best),
        "precision": found.precision(),
        "looked_at": [mix(looked_at) for looked_at in found.looked_at],
        "confirmed": None
        if confirmed is None
        else {**confirmed.fidelity.facts(), "milliseconds": confirmed.milliseconds, "bytes": confirmed.bytes},
    }


def show_search(facts: Mapping[str, Any]) -> None:
    """The front and the mix that was chosen, fastest first."""
    from qcomp.cli.output import bytes_text, plural, print_table

    judged = "accuracy" if facts["best"]["accuracy"] is not None else "agreement"
    timed = facts["best"]["milliseconds"] is not None
    chosen = _wider(facts["best"])
    shown = [m for m in facts["looked_at"] if m["on_front"] or _wider(m) == chosen]
    front = sorted(shown, key=lambda m: (m["milliseconds"] or 0.0, m["bytes"]))
    rows = [
        (
            len(mix["float32_layers"]), len(mix["int16_layers"]), decibels(mix), share(mix[judged]),
            *([f"{mix['milliseconds']:.3f}"] if timed else []), bytes_text(mix["bytes"]),
            "chosen" if _wider(mix) == chosen else _verdict(mix),
        )
        for mix in front
    ]  # fmt: skip
    head = ("float32 layers", "int16 layers", "dB", judged, *(["estimated ms"] if timed else []), "constants")
    print_table("", (*head, "reaches the goal"), rows)
    best = facts["best"]
    wide = [_named(best[f"{precision}_layers"], precision) for precision in ("float32", "int16")]
    print(f"{facts['goal']}: {'; '.join(text for text in wide if text) or 'everything in int8'}")
    count = plural(len(facts["looked_at"]), "mix")
    print(f"  looked at {count}: {decibels_text(best)}, {judged} {share(best[judged])}")
    if facts["confirmed"] is not None:
        got = facts["confirmed"]
        print(f"  as compiled: {decibels_text(got)}, {judged} {share(got[judged])}, {got['milliseconds']:.3f} ms")


def _verdict(mix: Mapping[str, Any]) -> str:
    if mix["reaches_goal"]:
        return "yes"
    return "no, as compiled" if mix["compiled_reaches_goal"] is False else "no"


def _wider(mix: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    return mix["float32_layers"], mix["int16_layers"]


def _named(layers: list[str], precision: str) -> str:
    """`2 layers in float32: conv1, conv5`, nothing if there are none."""
    from qcomp.cli.output import plural

    if not layers:
        return ""
    more = ", ..." if len(layers) > _MOST_NAMES else ""
    return f"{plural(len(layers), 'layer')} in {precision}: {', '.join(layers[:_MOST_NAMES])}{more}"


def decibels(facts: Mapping[str, Any]) -> str:
    """JSON has no infinity: null stands for the same outputs."""
    return "same" if facts["sqnr_db"] is None else f"{facts['sqnr_db']:.1f}"


def decibels_text(facts: Mapping[str, Any]) -> str:
    """`29.1 dB`, or that there is no noise."""
    return "the same outputs" if facts["sqnr_db"] is None else f"{decibels(facts)} dB"


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
