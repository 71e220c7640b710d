"""Models in onnxruntime, as the compiler runs them: a session with its options, and failures in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from qcomp.errors import QcompError

Arrays = Mapping[str, NDArray[Any]]


class Rewrites(Enum):
    """What onnxruntime may make of a graph before it runs it."""

    NONE = "ORT_DISABLE_ALL"
    BASIC = "ORT_ENABLE_BASIC"
    ALL = "ORT_ENABLE_ALL"


class RunRefused(QcompError):
    """onnxruntime does not run a model on arrays; `reason` is without where and what to do."""

    def __init__(self, reason: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(reason, where=where, fix=fix)
        self.reason = reason


class Session:
    """A model, loaded; `what` names it in errors, "the model" or "a part of the model"."""

    def __init__(
        self,
        model: onnx.ModelProto | str,
        what: str,
        *,
        threads: int,
        rewrites: Rewrites = Rewrites.ALL,
        as_written: bool = False,
        where: str = "",
        fix: str = "check the model",
    ) -> None:
        """model: a proto or a file's path.  as_written: pairs of QuantizeLinear and DequantizeLinear stay float, not
        made into integer kernels of another arithmetic.  QcompError when onnxruntime refuses it."""
        import onnxruntime  # slow to import, and only needed here
        from onnxruntime.capi import onnxruntime_pybind11_state as states

        # What onnxruntime raises has no common class below Exception.
        own = (kind for kind in vars(states).values() if isinstance(kind, type) and issubclass(kind, Exception))
        self._failures: tuple[type[Exception], ...] = (*own, RuntimeError, ValueError, EncodeError)
        self._what, self._where, self._fix = what, where, fix
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, rewrites.value)
        if as_written:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            source = model if isinstance(model, str) else model.SerializeToString()
            self._session: Any = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except self._failures as error:
            raise QcompError(f"onnxruntime cannot load {what} ({_line(error)})", where=where, fix=fix) from error
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(self, feed: Arrays, outputs: Sequence[str] | None = None) -> list[NDArray[Any]]:
        """The outputs named, or all, for the inputs in `feed`; it may run in several threads.  RunRefused when
        onnxruntime refuses it."""
        arrays = {name: np.asarray(value, order="C") for name, value in feed.items()}
        try:
            found: list[NDArray[Any]] = self._session.run(None if outputs is None else list(outputs), arrays)
        except self._failures as error:
            reason = f"onnxruntime cannot run {self._what} ({_line(error)})"
            raise RunRefused(reason, where=self._where, fix=self._fix) from error
        return found


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def watching(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """A copy of the model whose outputs are these tensors."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    # onnxruntime infers the types of outputs that state none.
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    return watched
