"""No command writes over what it reads, nor one output over another."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

Run = Callable[..., Any]

REPLACES, EACH_OTHER = "the output would replace the input", "would replace each other"

COMPILE = "compile MODEL -o OUT --calibrate DATA"
SEARCH = f"{COMPILE} --precision auto --validate VALID --labels LABELS"
ANALYZE = "analyze MODEL --calibrate DATA --validate VALID --labels LABELS"
COMMANDS = {
    "artifact over labels": (f"{SEARCH} -o LABELS", REPLACES),
    "artifact over samples to judge by": (f"{SEARCH} -o VALID", REPLACES),
    "artifact over the precision": (f"{COMPILE} --precision MIX -o MIX", REPLACES),
    "artifact over one of a folder of samples": ("compile MODEL -o FOLDER/0.npz --calibrate FOLDER", REPLACES),
    "artifact over the weights of the model": ("compile BIG -o WEIGHTS --calibrate DATA", REPLACES),
    "mix over the model": (f"{SEARCH} --save-precision MODEL", REPLACES),
    "mix over labels": (f"{SEARCH} --save-precision LABELS", REPLACES),
    "mix over the artifact": (f"{SEARCH} --save-precision OUT", EACH_OTHER),
    "graph over the precision": (f"{COMPILE} --precision MIX --save-graph MIX", REPLACES),
    "graph over the artifact": (f"{COMPILE} --save-graph OUT", EACH_OTHER),
    "graph over the mix": (f"{SEARCH} --save-graph NEW --save-precision NEW", EACH_OTHER),
    "graph in the place of the sources": (f"{COMPILE} --emit c --save-graph OUT", EACH_OTHER),
    "analysis over labels": (f"{ANALYZE} -o LABELS", REPLACES),
    "analysis over the mix": (f"{ANALYZE} --search -o NEW --save-precision NEW", EACH_OTHER),
    "passes over the model": ("opt MODEL -o MODEL", REPLACES),
    "tuning over the model": ("tune MODEL -o MODEL", REPLACES),
}


@pytest.fixture
def places(made: Path, tmp_path: Path) -> dict[str, Path]:
    """A model, the same with its weights in a file beside it, and data; OUT and NEW are not there."""
    shutil.copy(made / "mlp.onnx", tmp_path / "mlp.onnx")
    for name in ("data", "valid"):
        shutil.copy(made / "mlp.npz", tmp_path / f"{name}.npz")
    (tmp_path / "folder").mkdir()
    shutil.copy(made / "mlp.npz", tmp_path / "folder" / "0.npz")
    np.save(tmp_path / "labels.npy", np.zeros(40, np.int64))
    (tmp_path / "mix.json").write_text('{"y": "float32"}')
    onnx.save(onnx.load(made / "mlp.onnx"), tmp_path / "big.onnx", save_as_external_data=True, location="big.data",
              size_threshold=0)  # fmt: skip
    names = {
        "MODEL": "mlp.onnx", "BIG": "big.onnx", "WEIGHTS": "big.data", "DATA": "data.npz", "VALID": "valid.npz",
        "LABELS": "labels.npy", "MIX": "mix.json", "FOLDER": "folder", "OUT": "out.so", "NEW": "new.json",
    }  # fmt: skip
    return {name: tmp_path / file for name, file in names.items()}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_written_over(qcomp: Run, places: dict[str, Path], tmp_path: Path, name: str) -> None:
    words, mention = COMMANDS[name]
    for place, path in places.items():
        words = " ".join(word.replace(place, str(path)) if word.split("/")[0] == place else word
                         for word in words.split())  # fmt: skip
    before = contents(tmp_path)
    outcome = qcomp(*words.split())
    assert (outcome.status, outcome.out) == (2, "")
    assert mention in outcome.err
    assert contents(tmp_path) == before


def test_what_was_written_may_be_written_again(qcomp: Run, places: dict[str, Path]) -> None:
    words = ("compile", places["MODEL"], "-o", places["OUT"], "--float", "--quiet")
    assert [qcomp(*words).status for _ in range(2)] == [0, 0]
