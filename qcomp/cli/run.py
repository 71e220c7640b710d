"""`qcomp run`: runs an artifact once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcomp.cli.arguments import ArtifactPath, Json, Level, Threads

if TYPE_CHECKING:
    import numpy as np

InputPath = Annotated[
    Path,
    typer.Option("--input", "-i", metavar="IN", show_default=False,
                 help="An .npz whose keys are the input names, or an .npy for a model of one input; several samples "
                      "on the first axis run one after the other."),
]  # fmt: skip
Emulate = Annotated[
    bool, typer.Option("--emulate", help="Run an artifact of another machine by the emulator that its target names.")
]
OutputPath = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="OUT.npz", help="Write the outputs.", show_default=False)
]


def run(
    artifact: ArtifactPath,
    input: InputPath,
    output: OutputPath = None,
    threads: Threads = 1,
    level: Level = None,
    emulate: Emulate = False,
    json: Json = False,
) -> None:
    """Run an artifact on given inputs; print or write what comes out."""
    import numpy as np

    from qcomp.cli.files import check_input, check_outputs, read_arrays, write_file
    from qcomp.cli.output import print_json, print_table
    from qcomp.emulation import EmulatedModel
    from qcomp.errors import QcompError
    from qcomp.runtime.loader import load

    check_outputs({"-o": output}, (artifact, input))
    check_input(artifact)
    if emulate and level is not None:
        raise QcompError("--level is for this machine's processor", where=str(artifact), fix="leave it out")
    with nullcontext(EmulatedModel(artifact, threads)) if emulate else load(artifact, threads, level) as model:
        arrays = read_arrays(input, [t.name for t in model.inputs])
        missing = [t.name for t in model.inputs if t.name not in arrays]
        if missing:
            found = ", ".join(sorted(arrays)) or "nothing"
            raise QcompError(f"no key {missing[0]!r} (found: {found})", where=str(input), fix="save all inputs by name")
        samples = _samples({t.name: tuple(t.shape) for t in model.inputs}, arrays)
        try:
            if isinstance(model, EmulatedModel):
                found_all = model.run_all(samples)
            else:
                found_all = [model.run(sample) for sample in samples]
        except QcompError as error:
            raise QcompError(str(error), where=str(input)) from None
        results = {name: np.concatenate([found[name] for found in found_all]) for name in found_all[0]}
    if output is not None:
        write_file(output, lambda file: np.savez(file, allow_pickle=False, **results))
    rows = [{"name": name, **_statistics(array)} for name, array in results.items()]
    if json:
        facts = {"artifact": str(artifact), "output": str(output) if output else None, "samples": len(samples)}
        print_json({**facts, "outputs": rows})
    elif output is None:
        columns = ("output", "dtype", "shape", "min", "max", "mean", "largest at")
        print_table("", columns, [tuple("" if v is None else v for v in r.values()) for r in rows])


def _samples(shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """What each run is fed: the arrays as they are, or, where a model of batch 1 is given n samples of every input
    (first axis), one after the other."""
    counts = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    stacked = arrays.keys() == shapes.keys() and len(counts) == 1 and all(
        shape[:1] == (1,) and arrays[name].shape[1:] == shape[1:] for name, shape in shapes.items()
    )  # fmt: skip
    if not stacked or counts <= {0, 1}:
        return [dict(arrays)]
    return [{name: array[i : i + 1] for name, array in arrays.items()} for i in range(counts.pop())]


def _statistics(array: np.ndarray) -> dict[str, Any]:
    """Extremes, mean, and the flat index of the largest value; null where there is none."""
    import numpy as np

    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    facts: dict[str, Any] = {"dtype": str(array.dtype), "shape": list(array.shape)}
    if not finite.size:
        return facts | {"min": None, "max": None, "mean": None, "argmax": None}
    return facts | {
        "min": finite.min().item(),
        "max": finite.max().item(),
        "mean": float(finite.mean(dtype=np.float64)),
        "argmax": int(np.argmax(array)),
    }
