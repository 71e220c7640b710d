"""The float model in onnxruntime: whole runs as a user has them, and every tensor of the canonical graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from qcomp.quantize.onnxruntime_session import Arrays, Rewrites, Session, watching


class FloatModel:
    """An ONNX file, or a proto of which `tensors` are the outputs; `run` gives all outputs by name."""

    def __init__(
        self, model: Path | onnx.ModelProto, threads: int = 1, tensors: Sequence[str] | None = None, where: str = ""
    ) -> None:
        where = where or (str(model) if isinstance(model, Path) else model.graph.name)
        source = str(model) if isinstance(model, Path) else model if tensors is None else watching(model, tensors)
        rewrites = Rewrites.ALL if tensors is None else Rewrites.NONE
        self._session = Session(
            source, "it", threads=threads, rewrites=rewrites, where=where, fix="check the model and --shape"
        )
        self.inputs, self.outputs = self._session.inputs, self._session.outputs

    def run(self, sample: Arrays) -> dict[str, NDArray[Any]]:
        """All outputs of one run; QcompError when onnxruntime refuses the arrays."""
        found = self._session.run({name: sample[name] for name in self.inputs})
        return dict(zip(self.outputs, found, strict=True))
