"""The artifact has the last word on a mix that was measured in simulation."""

from __future__ import annotations

from dataclasses import replace

import layered_networks
import numpy as np
import pytest

import qcomp
from qcomp import confirmation
from qcomp.compiler import Artifact
from qcomp.confirmation import Confirmed, Judged, confirm
from qcomp.errors import QcompError
from qcomp.ir.interpreter import run
from qcomp.reports.costs import Costs

DATA = {"x": layered_networks.samples((layered_networks.CHANNELS,), 32)}


def compiled(*, limited: bool = True, **options: object) -> Artifact:
    auto = qcomp.Options(method="minmax", precision="auto", **options)  # type: ignore[arg-type]
    return qcomp.compile(layered_networks.with_outlier(limited), calibration=DATA, options=auto)


def test_an_artifact_is_confirmed_by_its_own_outputs() -> None:
    artifact = compiled(goal=qcomp.Goal(min_sqnr=40))
    assert artifact.search is not None and artifact.confirmed is not None
    assert artifact.search.best.floats == ("delicate",)
    noise = signal = 0.0
    for row in DATA["x"]:
        expected = run(layered_networks.with_outlier(), {"x": row[None]})["last.y"].astype(np.float64)
        got = run(artifact.graph, {"x": row[None]})["last.y"]
        noise, signal = noise + np.square(got - expected).sum(), signal + np.square(expected).sum()
    assert artifact.confirmed.fidelity.sqnr_db == pytest.approx(10 * np.log10(signal / noise), abs=1e-3)
    assert artifact.options.precision == {"spread": "int8", "delicate": "float32", "last": "int8"}


def test_nothing_stays_float_where_calibration_is_enough() -> None:
    artifact = compiled(goal=qcomp.Goal(min_sqnr=30), limited=False)  # equalization takes the outlier away
    assert artifact.search is not None and artifact.search.best.floats == () and artifact.coverage.float_nodes == 0
    assert artifact.confirmed is not None and artifact.confirmed.fidelity == artifact.search.best.whole
    assert artifact.options.precision == {"spread": "int8", "delicate": "int8", "last": "int8"}


def test_without_a_goal_next_to_nothing_may_change() -> None:
    artifact = compiled()
    assert artifact.search is not None and artifact.search.goal == qcomp.Goal(max_drop=0.005)
    assert artifact.confirmed is not None and artifact.confirmed.fidelity.agreement == 1.0


def test_the_next_better_mix_is_built_where_the_first_disappoints(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def disappointed(artifact: Artifact, judged: Judged) -> Confirmed | None:
        found = confirm(artifact, judged)
        assert found is not None
        seen.append(artifact.coverage.integer_nodes)
        return found if len(seen) > 2 else replace(found, fidelity=replace(found.fidelity, sqnr_db=1.0))

    monkeypatch.setattr(confirmation, "confirm", disappointed)
    artifact = compiled(goal=qcomp.Goal(min_sqnr=25))
    assert artifact.search is not None
    assert seen == [3, 2, 2]  # everything in int8, the best mix, a more accurate one
    assert (artifact.search.best.floats, artifact.search.best.words) == (("delicate",), ("last",))


def test_a_goal_that_no_artifact_reaches_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(artifact: Artifact, judged: Judged) -> Confirmed | None:
        found = confirm(artifact, judged)
        assert found is not None
        return replace(found, milliseconds=99.0)

    monkeypatch.setattr(confirmation, "confirm", slow)
    with pytest.raises(QcompError, match="no mix reaches at least 25 dB, at most 9 ms as compiled: .* 99 ms"):
        compiled(goal=qcomp.Goal(min_sqnr=25, max_latency=9.0))


def test_mixes_that_are_too_large_as_compiled_give_way_to_smaller_ones() -> None:
    smallest = compiled(goal=qcomp.Goal(min_sqnr=1)).confirmed
    assert smallest is not None
    artifact = compiled(goal=qcomp.Goal(max_size=smallest.bytes))
    assert artifact.search is not None and artifact.confirmed is not None
    assert artifact.search.best.floats == () and artifact.confirmed.bytes == smallest.bytes
    assert {len(mix.floats): mix.compiled for mix in artifact.search.looked_at}[3] is False


def test_what_is_fast_when_run_needs_no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Costs, "milliseconds", lambda costs, choice: 1e9)
    artifact = compiled(goal=qcomp.Goal(max_latency=1e6))
    assert artifact.search is not None and artifact.search.best.floats == ()
    assert artifact.confirmed is not None and artifact.confirmed.milliseconds < 1e6


def test_a_target_of_another_machine_is_not_run() -> None:
    auto = qcomp.Options(method="minmax", precision="auto", goal=qcomp.Goal(min_sqnr=25))
    artifact = qcomp.compile(layered_networks.with_outlier(True), target="aarch64", calibration=DATA, options=auto)
    assert artifact.confirmed is None and artifact.search is not None
    assert artifact.search.best.floats == ("delicate",)


def test_a_search_needs_data() -> None:
    with pytest.raises(QcompError, match="no calibration data"):
        qcomp.compile(layered_networks.with_outlier(), options=qcomp.Options(precision="auto"))
