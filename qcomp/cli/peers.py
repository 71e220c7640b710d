"""Other engines to compare with; adding one is a function and a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
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
        _check_names({i.name for i in session.get_inputs()}, feed, model)
        session.run(None, dict(feed))
    except failures as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise QcompError(f"onnxruntime cannot run it ({reason})", where=str(model), fix="check the model") from None
    return lambda: session.run(None, dict(feed))


def _openvino(model: Path, threads: int, feed: Feed) -> Callable[[], object]:
    """One stream on the CPU, in the precision that OpenVINO chooses for it (bfloat16 for floats on some machines)."""
    try:
        openvino: Any = import_module("openvino")
    except ImportError:
        raise QcompError("the package openvino is not installed", fix="pip install openvino") from None
    if model.suffix not in (".onnx", ".xml"):  # of others it complains by itself
        raise QcompError("OpenVINO takes no such file", where=str(model), fix="give an .onnx or .xml model")
    settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
    try:
        core = openvino.Core()
        network = core.read_model(str(model))
        _check_names({i.get_any_name() for i in network.inputs}, feed, model)
        network.reshape({name: list(array.shape) for name, array in feed.items()})
        request = core.compile_model(network, "CPU", settings).create_infer_request()
        request.infer(dict(feed), share_inputs=True, share_outputs=True)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise QcompError(f"OpenVINO cannot run it ({reason})", where=str(model), fix="check the model") from None
    return lambda: request.infer(dict(feed), share_inputs=True, share_outputs=True)


def _check_names(names: set[str], feed: Feed, model: Path) -> None:
    unknown = sorted(names ^ set(feed))
    if unknown:
        raise QcompError(
            f"its inputs are not the artifact's: {', '.join(unknown)}", where=str(model),
            fix="give the model that the artifact was compiled from",
        )  # fmt: skip


PEERS: Mapping[str, Callable[[Path, int, Feed], Callable[[], object]]] = MappingProxyType(
    {"onnxruntime": _onnxruntime, "openvino": _openvino}
)
