"""The float32 model itself, run by onnxruntime: what a quantized model is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qcomp.zoo.case import Array, Case, Samples


def run(model: Path, inputs: Samples) -> Array:
    """First output of the model for every sample of ``inputs``, one at a time, stacked on the first axis."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    count = len(next(iter(inputs.values())))
    feeds = ({name: array[i : i + 1] for name, array in inputs.items()} for i in range(count))
    return np.concatenate([session.run(None, feed)[0] for feed in feeds])


def reference_outputs(case: Case) -> Array:
    """What the float32 model answers to the case's test inputs, stacked on the first axis."""
    return run(case.onnx_path, case.test_inputs)
