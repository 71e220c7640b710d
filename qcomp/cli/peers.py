"""Other engines to compare with; adding one is a function and a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from qcomp.errors import QcompError

if TYPE_CHECKING:
    import numpy as np

    Feed = Mapping[str, np.ndarray]
    Run = Callable[[], object]


@dataclass(frozen=True)
class Peer:
    """An engine: the suffixes of the files that it runs, and what makes a function that runs one once.

    That function's arrays are bound where the engine's interface allows it, as those of qcomp are.
    """

    suffixes: tuple[str, ...]
    prepare: Callable[[Path, int, Feed], Run]


def peer(name: str, model: Path, threads: int, feed: Feed) -> Run:
    """A function that runs the model once on the engine of that name, which has run it already."""
    return PEERS[name].prepare(model, threads, feed)


def pairs(against: str, models: Sequence[Path]) -> list[tuple[str, Path]]:
    """Every engine of a list with commas, with every model that its suffix says it runs.

    Raises QcompError for an unknown or repeated engine, an engine without a model and a model without an engine.
    """
    engines = [name.strip() for name in against.split(",")]
    for index, name in enumerate(engines):
        if name not in PEERS:
            raise QcompError(f"no engine is called {name!r}", where="--against", fix=f"use some of {', '.join(PEERS)}")
        if name in engines[:index]:
            raise QcompError(f"{name} is there twice", where="--against", fix="name every engine once")
        if not any(model.suffix in PEERS[name].suffixes for model in models):
            suffixes = " or ".join(f"MODEL{suffix}" for suffix in PEERS[name].suffixes)
            raise QcompError(f"{name} has no model to run", where="--against", fix=f"give --model {suffixes}")
    for index, model in enumerate(models):
        if model in models[:index]:
            raise QcompError("the model is there twice", where=str(model), fix="give every model once")
        if not any(model.suffix in PEERS[name].suffixes for name in engines):
            fix = f"give one of {', '.join(sorted({s for name in engines for s in PEERS[name].suffixes}))}"
            raise QcompError(f"nothing of {', '.join(engines)} takes such a file", where=str(model), fix=fix)
    return [(name, model) for name in engines for model in models if model.suffix in PEERS[name].suffixes]


def _onnxruntime(model: Path, threads: int, feed: Feed) -> Run:
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
        results = session.run(None, dict(feed))
        arrays = [*zip(feed, feed.values(), strict=True), *zip(_names(session.get_outputs()), results, strict=True)]
        values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays}
        binding: Any = session.io_binding()
        for name in feed:
            binding.bind_ortvalue_input(name, values[name])
        for name in _names(session.get_outputs()):
            binding.bind_ortvalue_output(name, values[name])
        session.run_with_iobinding(binding)
    except failures as error:
        raise QcompError(f"onnxruntime cannot run it ({_line(error, 0)})", where=str(model), fix=_FIX) from None
    return lambda: session.run_with_iobinding(binding)


def _openvino(model: Path, threads: int, feed: Feed) -> Run:
    """One stream on the CPU, in the precision that OpenVINO chooses for it (bfloat16 for floats on some machines)."""
    try:
        openvino: Any = import_module("openvino")
    except ImportError:
        raise QcompError("the package openvino is not installed", fix="pip install openvino") from None
    settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
    try:
        core = openvino.Core()
        network = core.read_model(str(model))
        _check_names({i.get_any_name() for i in network.inputs}, feed, model)
        network.reshape({name: list(array.shape) for name, array in feed.items()})
        request = core.compile_model(network, "CPU", settings).create_infer_request()
        for name, array in feed.items():
            request.set_tensor(name, openvino.Tensor(array))
        request.infer()
    except (RuntimeError, TypeError, ValueError) as error:
        raise QcompError(f"OpenVINO cannot run it ({_line(error, -1)})", where=str(model), fix=_FIX) from None
    return lambda: request.infer()


def _litert(model: Path, threads: int, feed: Feed) -> Run:
    """With its default delegate, XNNPACK."""
    try:
        litert: Any = import_module("ai_edge_litert.interpreter")
    except ImportError:
        raise QcompError("the package ai-edge-litert is not installed", fix="pip install ai-edge-litert") from None
    try:
        interpreter = litert.Interpreter(str(model), num_threads=threads)
        interpreter.allocate_tensors()
        tensors = {_plain_name(tensor["name"]): tensor for tensor in interpreter.get_input_details()}
        if len(tensors) == len(feed) == 1:  # the converters rename inputs
            tensors = dict(zip(feed, tensors.values(), strict=True))
        _check_names(set(tensors), feed, model)
        for name, tensor in tensors.items():
            interpreter.set_tensor(tensor["index"], _tflite_input(feed[name], tensor, model))
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        raise QcompError(f"LiteRT cannot run it ({_line(error, 0)})", where=str(model), fix=_FIX) from None
    return interpreter.invoke  # type: ignore[no-any-return]


def _plain_name(name: str) -> str:
    return name.removeprefix("serving_default_").removesuffix(":0")


def _tflite_input(array: np.ndarray, tensor: Mapping[str, Any], model: Path) -> np.ndarray:
    """The array as the tensor has it: channels last where the artifact has them second, int8 of the tensor's scale."""
    import numpy as np

    shape = tuple(int(size) for size in tensor["shape"])
    if array.shape != shape and array.ndim > 2:
        array = np.moveaxis(array, 1, -1)
    if array.shape != shape:
        raise QcompError(
            f"its input {tensor['name']} has the shape {list(shape)}, not that of the artifact", where=str(model),
            fix="give the model that the artifact was compiled from",
        )  # fmt: skip
    dtype = np.dtype(tensor["dtype"])
    scale, zero_point = tensor["quantization"]
    if scale and array.dtype.kind == "f":
        limits = np.iinfo(dtype)
        array = np.clip(np.rint(array / scale) + zero_point, limits.min, limits.max)
    elif array.dtype != dtype:
        raise QcompError(
            f"its input {tensor['name']} is {dtype}, that of the artifact {array.dtype}", where=str(model),
            fix="give the model that the artifact was compiled from",
        )  # fmt: skip
    return np.ascontiguousarray(array, dtype)


_FIX = "check the model"


def _names(values: Sequence[Any]) -> list[str]:
    return [value.name for value in values]


def _line(error: Exception, which: int) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[which].strip()


def _check_names(names: set[str], feed: Feed, model: Path) -> None:
    unknown = sorted(names ^ set(feed))
    if unknown:
        raise QcompError(
            f"its inputs are not the artifact's: {', '.join(unknown)}", where=str(model),
            fix="give the model that the artifact was compiled from",
        )  # fmt: skip


PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "onnxruntime": Peer((".onnx", ".ort"), _onnxruntime),
        "openvino": Peer((".onnx", ".xml"), _openvino),
        "litert": Peer((".tflite",), _litert),
    }
)
