"""Numbers from a cluster are those of one machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import layered_networks
import pytest

import qcomp
from qcomp.errors import QcompError
from qcomp.quantize.distribute import Cluster

distributed = pytest.importorskip("distributed", reason="qcomp[distributed] is not installed")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster inside of this process."""
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as local:
        yield local.scheduler_address


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_a_cluster_gives_the_numbers_of_one_machine(address: str, method: str) -> None:
    data = {"x": layered_networks.samples((3, 6, 6), 70)}
    options = qcomp.Options(method=method)
    here = qcomp.analyze(layered_networks.residual(), calibration=data, options=options)
    there = qcomp.analyze(
        layered_networks.residual(), calibration=data, options=options, judging=qcomp.Judging(scheduler=address)
    )
    assert there.sensitivities == here.sensitivities
    assert (there.int8, there.float32) == (here.int8, here.float32)


def test_labels_travel(address: str) -> None:
    data = {"x": layered_networks.samples((3, 6, 6), 40)}
    labels = [i % 5 for i in range(40)]
    here, there = (
        qcomp.analyze(layered_networks.residual(), calibration=data, judging=qcomp.Judging(labels=labels, **at))
        for at in ({}, {"scheduler": address})
    )
    assert here.int8.accuracy is not None
    assert there.sensitivities == here.sensitivities


def test_an_address_without_a_scheduler_is_named() -> None:
    with pytest.raises(QcompError, match=r"--scheduler tcp://127\.0\.0\.1:9: no scheduler answers"):
        Cluster("tcp://127.0.0.1:9")


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(QcompError, match=r"Dask is not installed; pip install 'qcomp\[distributed\]'"):
        Cluster("tcp://127.0.0.1:9")
