"""docs/quantized-models.md says that EfficientNet-Lite0 quantized by onnxruntime gives the same bits: it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import qcomp
import qcomp.zoo
from qcomp.runtime.features import cpu_features


@pytest.mark.slow
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_efficientnet_quantized_by_onnxruntime_gives_its_bits(form: str, per_channel: bool, tmp_path: Path) -> None:
    # The claim is about kernels for VNNI: without it onnxruntime's products of u8 and s8 saturate on x86.
    if "avx512vnni" not in cpu_features():
        pytest.skip("this CPU lacks avx512vnni")
    case = qcomp.zoo.load("efficientnet_lite0")
    path = qcomp.zoo.quantized_by_onnxruntime(case, form, per_channel)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    with qcomp.load(qcomp.compile(path, shapes=case.shapes).save(tmp_path / "model.so")) as model:
        for x in np.split(case.inputs, len(case.inputs)):
            (theirs,) = session.run(None, {case.input_name: x})
            (ours,) = model.run(x).values()
            assert np.array_equal(ours, theirs)
