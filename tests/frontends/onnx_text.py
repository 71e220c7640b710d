"""Models for tests, from ONNX's text form."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper, parser

from qcomp.ir import Graph


def model(text: str, opset: int = 21, **constants: np.ndarray) -> onnx.ModelProto:
    """A model with the text of its graph; `constants` become initializers."""
    domains = f'"": {opset}, "com.microsoft": 1'
    proto = parser.parse_model(f"<ir_version: 10, opset_import: [{domains}]> g {text}")
    for name, array in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return proto


def ops(graph: Graph) -> list[str]:
    """Names of the graph's ops, in order."""
    return [n.op.name for n in graph.nodes]
