"""Why a sum can differ from onnxruntime's by a step: its kernel fuses multiply and add, the contract does not.

docs/quantized-models.md tells the story; the parameters are those of the addition of ResNet-8 where it happens.
"""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnxruntime
import pytest

import qcomp
from qcomp.ir import run
from qcomp.runtime.features import cpu_features

# scale and zero point (uint8) of both operands and of the result
A, B, Y = (0.06380462646484375, 123), (0.05080036073923111, 137), (0.03664281591773033, 0)


def model() -> onnx.ModelProto:
    constants = [f"float {n}s = {{{s!r}}}, uint8 {n}z = {{{z}}}" for n, (s, z) in zip("aby", (A, B, Y), strict=True)]
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> '
        f"g (uint8[256,256] a, uint8[256,256] b) => (uint8[256,256] y) <{', '.join(constants)}> "
        "{ y = com.microsoft.QLinearAdd(a, as, az, b, bs, bz, ys, yz) }"
    )


def fused(x: np.ndarray | int, factor: np.float32, addend: np.ndarray | np.float32) -> np.ndarray:
    """x · factor + addend with one rounding to float32: float64 holds the exact result for integers of eight bits."""
    return np.asarray(np.asarray(x, np.float64) * np.float64(factor) + np.asarray(addend, np.float64), np.float32)


def onnxruntime_sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """onnxruntime's kernel for x86 with FMA (core/mlas/lib/intrinsics/avx2/qladd_avx2.cpp)."""
    f_a, f_b = (np.float32(s) / np.float32(Y[0]) for s in (A[0], B[0]))
    fixed = np.float32(Y[1]) - fused(A[1], f_a, f_b * np.float32(B[1]))
    return np.asarray(np.clip(np.rint(fused(a, f_a, fused(b, f_b, fixed))), 0, 255), np.uint8)


@pytest.mark.skipif("fma" not in cpu_features(), reason="onnxruntime has another kernel on this machine")
def test_one_pair_of_operands_is_a_step_apart() -> None:
    a, b = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    feed = {"a": a, "b": b}
    session = onnxruntime.InferenceSession(model().SerializeToString(), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, feed)
    ours = run(qcomp.compile(model(), target="generic").graph, feed)["y"]
    assert np.array_equal(theirs, onnxruntime_sum(a, b))
    differ = np.argwhere(theirs != ours)
    assert [(int(theirs[*d]), int(ours[*d])) for d in differ] == [(128, 127)]
