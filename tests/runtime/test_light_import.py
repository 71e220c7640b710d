"""A machine that runs a model needs numpy, the loader and the artifact, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import expected_outputs

import qcomp

PROGRAM = """
import json, sys
import numpy as np
loaded = set(sys.modules)
import qcomp
assert "qcomp.runtime.loader" not in sys.modules
feed = dict(np.load("feed.npz"))
before_load = set(sys.modules)
with qcomp.load("tiny.so", threads=2) as model:
    y = model.run(feed)["y"]
    model.profile(feed, runs=1)
np.save("y.npy", y)
brought = sorted(set(sys.modules) - before_load | {name for name in sys.modules if name.startswith("qcomp")})
print(json.dumps({"all": sorted(sys.modules), "brought": brought}))
"""


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment that holds numpy and the runtime's Python files only."""
    folder = tmp_path_factory.mktemp("deployed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    site = next((folder / "venv" / "lib").glob("python*/site-packages"))
    installed = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        if (installed / name).exists():
            (site / name).symlink_to(installed / name)
    package = Path(qcomp.__file__).parent
    (site / "qcomp" / "runtime").mkdir(parents=True)
    for path in (package / "__init__.py", package / "errors.py", *(package / "runtime").glob("*.py")):
        shutil.copy(path, site / path.relative_to(package.parent))
    return folder


def test_a_bare_machine_runs_a_copied_artifact(artifact: Path, deployed: Path, feed: dict[str, np.ndarray]) -> None:
    shutil.copy(artifact, deployed / "tiny.so")
    np.savez(deployed / "feed.npz", **feed)
    done = subprocess.run(
        [deployed / "venv" / "bin" / "python", "-I", "-c", PROGRAM], cwd=deployed, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(deployed / "y.npy"), expected_outputs(feed)["y"])

    modules = json.loads(done.stdout)
    foreign = {name.partition(".")[0] for name in modules["all"]} - sys.stdlib_module_names - {"numpy", "qcomp"}
    assert {name for name in foreign if not name.startswith("__")} == set()
    assert [name for name in modules["brought"] if name.startswith("qcomp")] == [
        "qcomp", "qcomp.errors", "qcomp.runtime", "qcomp.runtime.artifact", "qcomp.runtime.binding",
        "qcomp.runtime.bound", "qcomp.runtime.checksum", "qcomp.runtime.features", "qcomp.runtime.library",
        "qcomp.runtime.loader", "qcomp.runtime.metadata",
    ]  # fmt: skip
    # Each of these costs megabytes; none of them belongs to running a model.
    assert not {"hashlib", "_hashlib", "ssl", "subprocess", "multiprocessing", "logging"} & set(modules["brought"])


def test_importing_qcomp_brings_in_nothing_but_its_errors() -> None:
    program = "import sys; before = set(sys.modules); import qcomp; print(*sorted(set(sys.modules) - before))"
    root = Path(qcomp.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    brought = set(done.stdout.split()) - set(sys.builtin_module_names)
    assert {name for name in brought if name.startswith("qcomp")} == {"qcomp", "qcomp.errors"}
    assert "numpy" not in brought


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'teleport'"):
        _ = qcomp.teleport  # type: ignore[attr-defined]
    assert {"load", "compile", "QcompError", "__version__"} <= set(dir(qcomp))
