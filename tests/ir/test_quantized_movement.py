"""Quantization passes through ops that only move elements, and padding writes quantized reals."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import case

from qcomp.ir import DType, Quantization, run
from qcomp.ir.ops.movement import cast_array

Q = Quantization.per_tensor(0.5, 3)
X = np.arange(-8, 8, dtype=np.int8).reshape(1, 4, 2, 2)

PASSES = [
    ("identity", {}),
    ("max_pool", {"kernel": (2, 2)}),
    ("reshape", {"shape": (16,)}),
    ("transpose", {"perm": (0, 2, 3, 1)}),
    ("concat", {"axis": 1}),
    ("slice", {"starts": (0, 1, 0, 1), "ends": (1, 4, 2, -1), "steps": (1, 2, 1, -1)}),
    ("pad", {"pads": (0, 0, 1, 1, 0, 0, 1, 1)}),
    ("split", {"axis": 1, "sizes": (1, 3)}),
    ("expand", {"shape": (3, 4, 2, 2)}),
    ("tile", {"repeats": (1, 1, 2, 1)}),
    ("depth_to_space", {"block": 2}),
    ("space_to_depth", {"block": 2}),
    ("resize", {"sizes": (1, 4, 4, 4), "scales": (1.0, 1.0, 2.0, 2.0)}),
    ("reduce_max", {"axes": (1,)}),
    ("reduce_min", {"axes": (1,)}),
]


@pytest.mark.parametrize(("op", "attrs"), PASSES)
def test_quantization_passes_through(op: str, attrs: dict) -> None:
    c = case(op, [X], attrs, quants={0: Q})
    assert all(v.quant == Q and v.dtype is DType.I8 for v in c.graph.nodes[0].outputs)
    assert all(v.dtype == np.int8 for v in run(c.graph, c.arrays).values())


def test_gather_and_where_pass_quantization_too() -> None:
    indices = np.array([1, -1], np.int64)
    assert case("gather", [X, indices], {"axis": 1}, quants={0: Q}).graph.outputs[0].quant == Q
    cond = np.array([True, False])
    assert case("where", [cond, X, X], quants={1: Q, 2: Q}).graph.outputs[0].quant == Q


@pytest.mark.parametrize(("value", "stored"), [(0.0, 3), (1.0, 5), (-2.0, -1), (1000.0, 127)])
def test_padding_writes_the_quantized_value(value: float, stored: int) -> None:
    c = case("pad", [X[0, 0]], {"pads": (1, 0, 0, 0), "value": value}, quants={0: Q})
    assert (run(c.graph, c.arrays)["y"][0] == stored).all()


def test_padding_without_quantization_writes_the_value_itself() -> None:
    c = case("pad", [X[0, 0]], {"pads": (1, 0, 0, 0), "value": 7.0})
    assert (run(c.graph, c.arrays)["y"][0] == 7).all()


def test_scales_along_an_axis_move_with_it() -> None:
    scales = Quantization.per_channel(np.array([0.5, 0.25, 1.0, 2.0]), 1)
    moved = case("transpose", [X], {"perm": (1, 2, 3, 0)}, quants={0: scales}).graph.outputs[0].quant
    assert moved == Quantization(scales.scale, scales.zero_point, 0)
    kept = case("reshape", [X], {"shape": (4, 4)}, quants={0: scales}).graph.outputs[0].quant
    assert kept == Quantization(scales.scale, scales.zero_point, 0)


def test_padding_never_wins_a_maximum() -> None:
    x = np.full((1, 1, 2, 2), -128, np.int8)
    c = case("max_pool", [x], {"kernel": (2, 2), "pads": (1, 1, 1, 1)})
    assert (run(c.graph, c.arrays)["y"] == -128).all()


def test_cast_clamps_floats_and_wraps_integers() -> None:
    x = np.array([1.9, -1.9, 300.0, -300.0, np.nan, np.inf, -np.inf], np.float32)
    np.testing.assert_array_equal(cast_array(x, DType.I8), [1, -1, 127, -128, 0, 127, -128])
    np.testing.assert_array_equal(cast_array(x, DType.U8), [1, 0, 255, 0, 0, 255, 0])
    ends = cast_array(np.array([1e30, -1e30], np.float32), DType.I64)
    assert ends.tolist() == [2**63 - 1, -(2**63)]
    assert cast_array(np.array([300, -1]), DType.U8).tolist() == [44, 255]
    assert cast_array(np.array([0.0, np.nan, 0.5], np.float32), DType.BOOL).tolist() == [False, True, True]


def test_gather_counts_negative_indices_from_the_end_and_clamps_the_rest() -> None:
    x, indices = np.arange(5, dtype=np.float32), np.array([-1, -5, -9, 9], np.int64)
    c = case("gather", [x, indices], {"axis": 0})
    assert run(c.graph, c.arrays)["y"].tolist() == [4, 0, 0, 4]


def test_integer_division_truncates_and_modulo_takes_the_sign_of_the_divisor() -> None:
    a, b = np.array([7, -7, 7, -7, 5]), np.array([2, 2, -2, -2, 0])
    c = case("div", [a, b])
    assert run(c.graph, c.arrays)["y"].tolist() == [3, -3, -3, 3, 0]
    c = case("mod", [a, b])
    assert run(c.graph, c.arrays)["y"].tolist() == [1, 1, -1, -1, 0]
