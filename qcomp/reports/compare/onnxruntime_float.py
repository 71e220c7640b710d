"""The float model in onnxruntime: whole runs as a user has them, and every tensor of the canonical graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from qcomp.errors import QcompError
from qcomp.quantize.onnxruntime_errors import onnxruntime_failures, refused

Arrays = Mapping[str, NDArray[Any]]


class FloatModel:
    """An ONNX file, or a proto of which `tensors` are the outputs; `run` gives all outputs by name."""

    def __init__(
        self, model: Path | onnx.ModelProto, threads: int = 1, tensors: Sequence[str] | None = None, where: str = ""
    ) -> None:
        import onnxruntime  # slow to import, and only needed here

        self._failures = onnxruntime_failures()
        self._where = where or (str(model) if isinstance(model, Path) else model.graph.name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        if tensors is not None:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        source = str(model) if isinstance(model, Path) else _watched(model, tensors).SerializeToString()
        try:
            self._session: Any = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except self._failures as error:
            raise self._error("load", error) from None
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(self, sample: Arrays) -> dict[str, NDArray[Any]]:
        """All outputs of one run; QcompError when onnxruntime refuses the arrays."""
        feed = {name: np.ascontiguousarray(sample[name]).reshape(sample[name].shape) for name in self.inputs}
        try:
            found = self._session.run(None, feed)
        except self._failures as error:
            raise self._error("run", error) from None
        return dict(zip(self.outputs, found, strict=True))

    def _error(self, what: str, error: Exception) -> QcompError:
        return refused(f"{what} it", error, self._where, "check the model and --shape")


def _watched(model: onnx.ModelProto, tensors: Sequence[str] | None) -> onnx.ModelProto:
    if tensors is None:
        return model
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    # onnxruntime infers the types of outputs that state none.
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    return watched
