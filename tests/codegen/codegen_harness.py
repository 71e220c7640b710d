"""Compiles one graph that holds many small cases, and compares every output with the interpreter's."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from qcomp.codegen.build import build_library
from qcomp.codegen.c.emit import generate
from qcomp.codegen.c.kernel import KernelTable
from qcomp.codegen.c.table import kernel_table
from qcomp.ir import DType, Graph, Quantization, TensorType, Value, run, verify
from qcomp.runtime.loader import load
from qcomp.targets import target

PORTABLE = kernel_table(portable_only=True)


class Cases:
    """A graph under construction: every case adds inputs and outputs of its own."""

    def __init__(self, seed: int = 0) -> None:
        self.graph = Graph("cases")
        self.rng = np.random.default_rng(seed)
        self.feeds: dict[str, np.ndarray] = {}
        self._count = 0

    def data(self, shape: tuple[int, ...], dtype: DType = DType.F32, spread: float = 3.0) -> np.ndarray:
        """Random elements; floats with a few signed zeros."""
        if dtype is DType.F32:
            x = self.rng.normal(0, spread, shape).astype(np.float32)
            return np.where(self.rng.random(shape) < 0.02, np.float32(-0.0), x)
        if dtype is DType.BOOL:
            return self.rng.random(shape) < 0.5
        low, high = dtype.limits
        return self.rng.integers(max(low, -1000), min(high, 1000), shape, endpoint=True).astype(dtype.numpy)

    def input(self, shape: tuple[int, ...], dtype: DType = DType.F32, data: np.ndarray | None = None) -> Value:
        self._count += 1
        name = f"x{self._count}"
        self.feeds[name] = self.data(shape, dtype) if data is None else np.asarray(data, dtype.numpy)
        return self.graph.input(name, TensorType(dtype, tuple(self.feeds[name].shape)))

    def i8(self, shape: tuple[int, ...], zero_point: int = 0) -> Value:
        """An int8 activation that was quantized in the graph, so that it lives in the arena."""
        x = self.input(shape, data=self.rng.uniform(-140, 140, shape))
        quant = Quantization.per_tensor(1.0, zero_point)
        return self.graph.add("quantize", [x], {"quant": quant}, names=["q"]).output

    def i16(self, shape: tuple[int, ...], zero_point: int = 0) -> Value:
        """An int16 activation that was quantized in the graph, over the whole range of the type."""
        x = self.input(shape, data=self.rng.uniform(-35000, 35000, shape))
        attrs = {"quant": Quantization.per_tensor(1.0, zero_point), "dtype": DType.I16}
        return self.graph.add("quantize", [x], attrs, names=["q"]).output

    def constant(self, array: np.ndarray) -> Value:
        return self.graph.constant(np.asarray(array), "c")

    def op(self, name: str, operands: list[Value | None], label: str = "", **attrs: object) -> Value:
        """Adds a node and makes all its results outputs; the first result."""
        node = self.graph.add(name, operands, attrs, names=[label or name])  # type: ignore[arg-type]
        self.graph.outputs += node.outputs
        return node.outputs[0]


def compiled_outputs(
    graph: Graph, feeds: dict[str, np.ndarray], name: str, table: KernelTable | None = None, threads: int = 1
) -> dict[str, np.ndarray]:
    """Outputs of the graph compiled for a target."""
    with tempfile.TemporaryDirectory() as folder:
        path = build_library(generate(graph, target(name), table=table), Path(folder) / "model.so")
        model = load(str(path), threads=threads)
        return dict(model.run(feeds))


def differences(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> list[str]:
    """Names of outputs that differ in any element (NaN equals NaN)."""
    wrong = []
    for name, array in expected.items():
        same = array.shape == found[name].shape and array.dtype == found[name].dtype
        if not (same and np.array_equal(array, found[name], equal_nan=array.dtype.kind == "f")):
            wrong.append(name)
    return wrong


def check(cases: Cases, name: str, table: KernelTable | None = PORTABLE, threads: int = 1) -> None:
    """Asserts that the compiled cases equal the interpreted ones."""
    verify(cases.graph)
    expected = run(cases.graph, cases.feeds)
    found = compiled_outputs(cases.graph, cases.feeds, name, table, threads)
    assert differences(expected, found) == []
