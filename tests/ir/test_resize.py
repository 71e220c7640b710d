"""`resize` takes the elements that onnxruntime takes, also where a position is an element or half way between two."""

import numpy as np
import onnx.parser
import onnxruntime
import pytest

from qcomp.ir import Graph, TensorType, run
from qcomp.ir.ops.resize import ROUNDING


@pytest.mark.parametrize("rounding", ROUNDING)
@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
def test_nearest_takes_the_elements_that_onnxruntime_takes(coordinates: str, rounding: str) -> None:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 18]> g (float[1,n] x, int64[2] s) => (float[1,m] y) {{ '
        f'y = Resize <mode = "nearest", coordinate_transformation_mode = "{coordinates}", '
        f'nearest_mode = "{rounding}"> (x, , , s) }}'
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wrong = []
    for size in (7, 14, 28, 30):
        x = np.arange(size, dtype=np.float32)[None]
        for out in range(1, 48):
            graph = Graph("g")
            attrs = {"sizes": (1, out), "scales": (1.0, out / size), "coordinates": coordinates, "rounding": rounding}
            graph.outputs.append(graph.add("resize", [graph.input("x", TensorType.f32(1, size))], attrs).output)
            (found,) = run(graph, {"x": x}).values()
            (expected,) = session.run(None, {"x": x, "s": np.asarray([1, out])})
            if not np.array_equal(found, expected):
                wrong.append((size, out))
    assert wrong == []
