"""Float products and reductions add in the stated order: plain loops over float32 give the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import case

from qcomp.ir import lookup, run
from qcomp.ir.ordered import ordered_product, ordered_sum

F32 = np.float32


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) * 10.0 ** rng.integers(-3, 4, shape)).astype(F32)


def loop_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    y = np.zeros((a.shape[0], b.shape[1]), F32)
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            acc = F32(0)
            for k in range(a.shape[1]):
                acc = F32(acc + F32(a[i, k] * b[k, j]))
            y[i, j] = acc
    return y


@pytest.mark.parametrize(("m", "k", "n"), [(1, 40, 3), (5, 33, 7), (70, 9, 2), (2, 1, 90), (3, 0, 4)])
def test_products_run_over_k_in_order(m: int, k: int, n: int) -> None:
    a, b = floats(m, k), floats(k, n, seed=1)
    assert ordered_product(a, b).tobytes() == loop_product(a, b).tobytes()


def test_large_products_do_not_depend_on_blocking() -> None:
    a, b = floats(300, 20), floats(20, 200, seed=1)
    whole = ordered_product(a, b)
    assert whole[77:78].tobytes() == ordered_product(a[77:78], b).tobytes()
    assert whole[:, 31:33].tobytes() == ordered_product(a, b[:, 31:33]).tobytes()


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100])
def test_sums_have_sixteen_interleaved_parts_and_a_tree(size: int) -> None:
    x = floats(1, size)
    parts = [F32(0)] * 16
    for i in range(size):
        parts[i % 16] = F32(parts[i % 16] + x[0, i])
    for half in (8, 4, 2, 1):
        parts = [F32(parts[i] + parts[i + half]) for i in range(half)]
    assert ordered_sum(x).tobytes() == np.array(parts, F32).tobytes()


def loop_conv(x: np.ndarray, w: np.ndarray, strides, dilations, pads, groups: int) -> np.ndarray:
    n, _, h, wide = x.shape
    out, inner, kh, kw = w.shape
    rows = (h + pads[0] + pads[2] - dilations[0] * (kh - 1) - 1) // strides[0] + 1
    cols = (wide + pads[1] + pads[3] - dilations[1] * (kw - 1) - 1) // strides[1] + 1
    y = np.zeros((n, out, rows, cols), F32)
    for index in np.ndindex(*y.shape):
        image, o, r, c = index
        acc, first = F32(0), o // (out // groups) * inner
        for i in range(kh):
            for j in range(kw):
                row = r * strides[0] + i * dilations[0] - pads[0]
                col = c * strides[1] + j * dilations[1] - pads[1]
                if 0 <= row < h and 0 <= col < wide:
                    for k in range(inner):
                        acc = F32(acc + F32(x[image, first + k, row, col] * w[o, k, i, j]))
        y[index] = acc
    return y


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("groups", "inner", "outer"), [(1, 5, 4), (2, 3, 2), (4, 1, 1), (3, 1, 2)])
def test_convolutions_run_over_rows_columns_channels_in_order(layout, groups: int, inner: int, outer: int) -> None:
    x, w = floats(2, groups * inner, 5, 6), floats(groups * outer, inner, 3, 2, seed=1)
    b = floats(groups * outer, seed=2)
    window = {"strides": (2, 1), "dilations": (1, 2), "pads": (1, 0, 2, 1)}
    fed = x.transpose(0, 2, 3, 1) if layout == "NHWC" else x
    c = case("conv2d", [fed, w, b], {**window, "groups": groups, "layout": layout}, constants=(1, 2))
    y = run(c.graph, c.arrays)["y"]
    expected = loop_conv(x, w, *window.values(), groups) + b[:, None, None]
    assert (y.transpose(0, 3, 1, 2) if layout == "NHWC" else y).tobytes() == expected.tobytes()


def test_transposed_convolutions_add_rows_columns_channels_in_order() -> None:
    x, w, b = floats(1, 4, 3, 3), floats(4, 3, 3, 2, seed=1), floats(6, seed=2)
    attrs = {"strides": (2, 1), "pads": (1, 0, 0, 1), "output_pads": (1, 0), "groups": 2, "dilations": (1, 2)}
    c = case("conv_transpose2d", [x, w, b], attrs, constants=(1, 2))
    y = run(c.graph, c.arrays)["y"]
    expected = np.zeros(y.shape, F32)
    for o, row, col in np.ndindex(*y.shape[1:]):
        acc, group = F32(0), o // 3
        for i in range(3):
            for j in range(2):
                r, s = divmod(row + 1 - i, 2)
                q = col + 0 - 2 * j
                if s == 0 and 0 <= r < 3 and 0 <= q < 3:
                    for k in range(2 * group, 2 * group + 2):
                        acc = F32(acc + F32(x[0, k, r, q] * w[k, o % 3, i, j]))
        expected[0, o, row, col] = F32(acc + b[o])
    assert y.tobytes() == expected.tobytes()


def test_layer_norm_is_the_stated_sequence_of_operations() -> None:
    x, scale, bias = floats(3, 37), floats(37, seed=1), floats(37, seed=2)
    c = case("layer_norm", [x, scale, bias], {"axis": 1, "epsilon": 1e-5}, constants=(1, 2))
    n = F32(37)
    d = x - (ordered_sum(x) / n)[:, None]
    inverse = F32(1) / np.sqrt(ordered_sum(d * d) / n + F32(1e-5))
    assert run(c.graph, c.arrays)["y"].tobytes() == ((d * inverse[:, None]) * scale + bias).tobytes()


def test_average_pools_add_taps_in_order_and_divide() -> None:
    x = floats(1, 1, 4, 4)
    c = case("avg_pool", [x], {"kernel": (4, 4)})
    acc = F32(0)
    for tap in x.reshape(-1):
        acc = F32(acc + tap)
    assert run(c.graph, c.arrays)["y"].tobytes() == np.array(acc / F32(16), F32).tobytes()


@pytest.mark.parametrize(
    ("op", "operands", "macs"),
    [
        ("conv2d", [(1, 6, 8, 8), (4, 3, 3, 3)], 4 * 6 * 6 * 27),
        ("matmul", [(2, 3, 5), (5, 7)], 2 * 3 * 5 * 7),
        ("gemm", [(3, 5), (5, 7)], 3 * 5 * 7),
        ("conv_transpose2d", [(1, 2, 3, 3), (2, 4, 2, 2)], 2 * 9 * 16),
    ],
)
def test_products_count_their_multiplications(op: str, operands: list[tuple[int, ...]], macs: int) -> None:
    attrs = {"groups": 2} if op == "conv2d" else {}
    graph = case(op, [floats(*s) for s in operands], attrs).graph
    assert lookup(op).macs(graph.nodes[0].call) == macs
