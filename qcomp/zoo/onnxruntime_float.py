"""The float32 model itself, run by onnxruntime: what a quantized model is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qcomp.zoo.case import Array, Case


def run(model: Path, input_name: str, inputs: Array) -> Array:
    """First output of the model for every sample of ``inputs``, one at a time, stacked on the first axis."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    outputs = [session.run(None, {input_name: inputs[i : i + 1]})[0] for i in range(len(inputs))]
    return np.concatenate(outputs)


def reference_outputs(case: Case) -> Array:
    """What the float32 model answers to the case's test inputs, stacked on the first axis."""
    return run(case.onnx_path, case.input_name, case.inputs)
