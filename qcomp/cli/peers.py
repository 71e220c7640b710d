"""Other engines to compare with; adding one is a function and a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from qcomp.errors import QcompError

if TYPE_CHECKING:
    import numpy as np

    Feed = Mapping[str, np.ndarray]


def peer(name: str, model: Path, threads: int, feed: Feed) -> Callable[[], object]:
    """A function that runs the model once on the engine of that name, which has run it already."""
    return PEERS[name](model, threads, feed)


def _onnxruntime(model: Path, threads: int, feed: Feed) -> Callable[[], object]:
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as states
    except ImportError:
        raise QcompError("the package onnxruntime is not installed", fix="pip install onnxruntime") from None
    # What onnxruntime raises has no common class below Exception.
    failures: tuple[type[Exception], ...] = (
        *(k for k in vars(states).values() if isinstance(k, type) and issubclass(k, Exception)),
        RuntimeError,
        ValueError,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        session: Any = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        names = {i.name for i in session.get_inputs()}
        unknown = sorted(names ^ set(feed))
        if unknown:
            raise QcompError(
                f"its inputs are not the artifact's: {', '.join(unknown)}", where=str(model),
                fix="give the model that the artifact was compiled from",
            )  # fmt: skip
        session.run(None, dict(feed))
    except failures as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise QcompError(f"onnxruntime cannot run it ({reason})", where=str(model), fix="check the model") from None
    return lambda: session.run(None, dict(feed))


PEERS: Mapping[str, Callable[[Path, int, Feed], Callable[[], object]]] = MappingProxyType({"onnxruntime": _onnxruntime})
