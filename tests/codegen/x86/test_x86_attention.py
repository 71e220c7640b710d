"""Generated attention gives the interpreter's integers, on shapes around every width, and reads only what is there."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from test_x86_kernels import EXTRA, MACHINES, TABLE, VBMI, image, layout
from x86_harness import Guarded, Library, aligned, every_isa

from qcomp.codegen.c.kernel import KernelCode, KernelRequest
from qcomp.codegen.c.vector.views import plane
from qcomp.codegen.c.x86.attention import weights_helper
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.plan.buffer import NO_HALO, Halo
from qcomp.ir import DType, Graph, Node, TensorType
from qcomp.ir import fixed_math as fm
from qcomp.ir.interpreter import evaluate_node

Shape = tuple[int, int, int, int, int, int]  # batch, rows, keys, heads, depth, width
SIZES = (1, 2, 3, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129)
MASKS = ("", "keys", "rows", "heads", "all")


def attention(shape: Shape, mask: str = "", real: bool = False, constant: bool = False, seed: int = 0) -> Node:
    """A node with random zero points and scales, whose mask spreads over some dimensions."""
    b, m, n, h, d, e = shape
    rng, graph = np.random.default_rng(seed), Graph()
    operands = [graph.input(name, TensorType(DType.I8, of)) for name, of in
                (("q", (b, m, h, d)), ("k", (b, n, h, d)), ("v", (b, n, h, e)))]  # fmt: skip
    if mask:
        own = {"keys": (1, 1, 1, n), "rows": (1, 1, m, n), "heads": (b, h, 1, n), "all": (b, h, m, n)}[mask]
        hidden = np.where(rng.random(own) < 0.2, -np.inf, rng.normal(0, 1, own)).astype(np.float32)
        of = TensorType(DType.F32, own)
        operands.append(graph.constant(hidden, "mask") if constant else graph.input("mask", of))
    lo, hi = (-128, 127) if rng.integers(2) else (-100, 90)
    zeros = {f"{name}_zp": int(rng.integers(-128, 128)) * int(rng.integers(4) > 0) for name in "qkv"}
    scale = float(np.float32(rng.uniform(0.2, 2) / (70 * 70 * np.sqrt(d))))
    attrs = {**zeros, "scale": scale, "mult": float(np.float32(rng.uniform(0.3, 2))), "zp": int(rng.integers(-20, 20)),
             "lo": lo, "hi": hi, "dtype": DType.F32 if real else DType.I8}  # fmt: skip
    return graph.add("qattention", operands, attrs)


def operands_of(node: Node, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    found = []
    for value in filter(None, node.inputs):
        if value.is_constant:
            found.append(value.array)
        elif value.dtype is DType.I8:
            found.append(rng.integers(-128, 128, value.shape, dtype=np.int8))
        else:
            found.append(rng.choice([0.0, -1e4, -np.inf, np.nan, 0.5], value.shape).astype(np.float32))
    return found


def stored(data: np.ndarray) -> np.ndarray:
    return data.view(np.uint8) ^ 0x80 if data.dtype == np.int8 else data


def check_all(cases: list[Node], isa: Isa, extra: Halo, inlined: bool = False) -> None:
    codes = {}
    for i, node in enumerate(cases):
        kernel = TABLE.select(node, MACHINES[isa])
        inputs, output = layout(node, kernel, extra)
        codes[f"k{i}"] = kernel.generate(KernelRequest(node, tuple(inputs), (output,), MACHINES[isa], f"k{i}"))
    library = Library(codes, isa, inlined=inlined)
    for i, node in enumerate(cases):
        inputs, output = layout(node, TABLE.select(node, MACHINES[isa]), extra)
        operands = operands_of(node, i)
        images = [image(buffer, 77) for buffer in inputs]
        moving = [data for value, data in zip(node.inputs, operands, strict=True) if value and not value.is_constant]
        for one, data in zip(images, moving, strict=True):
            one.inner[...] = stored(data).reshape(one.inner.shape)
        result = image(output)
        before = result.outside()
        library.run(f"k{i}", [x.address for x in (*images, result)])
        (expected,) = evaluate_node(node, operands)
        assert np.array_equal(result.inner.reshape(expected.shape), stored(expected)), node
        assert np.array_equal(result.outside(), before), node


@every_isa
@pytest.mark.parametrize("extra", [NO_HALO, EXTRA], ids=["dense", "halo"])
def test_ragged_sizes_with_every_kind_of_mask(isa: Isa, extra: Halo) -> None:
    rng = np.random.default_rng(17)
    cases = []
    for i, (mask, real) in enumerate(itertools.product(MASKS, (False, True))):
        for j in range(3):
            b, h = rng.integers(1, 3, 2).tolist()
            m, n, d, e = rng.choice(SIZES, 4).tolist()
            cases.append(attention((b, m, n, h, d, e), mask, real, constant=j == 2, seed=3 * i + j))
    check_all(cases, isa, extra)


@every_isa
@pytest.mark.parametrize("extra", [NO_HALO, EXTRA], ids=["dense", "halo"])
def test_heads_leave_the_columns_of_others(isa: Isa, extra: Halo) -> None:
    """Where the compiler knows how many columns the last vector has, and that nothing is added to them."""
    cases = []
    for width in (1, 2, 17, 33):
        cases.append(attention((2, 4, 4, 3, 4, width)))
        cases[-1].attrs |= {"zp": -128, "lo": -128, "hi": 127}
    check_all(cases, isa, extra, inlined=True)


@every_isa
def test_heads_of_common_models(isa: Isa) -> None:
    shapes = [(1, 64, 64, 12, 32, 32), (1, 1, 40, 8, 64, 64), (1, 49, 49, 3, 32, 32), (2, 60, 60, 8, 15, 15)]
    check_all([attention(shape, mask, seed=i) for i, shape in enumerate(shapes) for mask in ("", "keys")], isa, NO_HALO)


@every_isa
def test_keys_and_values_of_long_sequences_take_turns(isa: Isa) -> None:
    cases = [attention((1, 70, 512, 2, 64, 64), "keys"), attention((1, 35, 500, 1, 63, 61), "rows"),
             attention((2, 5, 400, 1, 80, 70), seed=2)]  # fmt: skip
    for node in cases:
        kernel = TABLE.select(node, MACHINES[isa])
        inputs, output = layout(node, kernel, NO_HALO)
        code = kernel.generate(KernelRequest(node, tuple(inputs), (output,), MACHINES[isa], "k"))
        assert "int8_t packed[" in code.text
    check_all(cases, isa, NO_HALO)


@every_isa
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_nothing_is_read_far_from_the_operands(isa: Isa, after: bool) -> None:
    shapes: list[Shape] = [(1, 3, 5, 1, 7, 9), (1, 9, 65, 2, 33, 17), (1, 1, 1, 1, 1, 1), (2, 8, 31, 1, 64, 64)]
    cases = [attention(shape, "rows", seed=i) for i, shape in enumerate(shapes)]
    codes = {}
    for i, node in enumerate(cases):
        kernel = TABLE.select(node, MACHINES[isa])
        inputs, output = layout(node, kernel, NO_HALO)
        codes[f"k{i}"] = kernel.generate(KernelRequest(node, tuple(inputs), (output,), MACHINES[isa], f"k{i}"))
    library = Library(codes, isa)
    for i, node in enumerate(cases):
        inputs, output = layout(node, TABLE.select(node, MACHINES[isa]), NO_HALO)
        operands = operands_of(node)
        guarded = [Guarded(plane(buffer), after) for buffer in inputs[:3]]
        for one, data in zip(guarded, operands, strict=False):
            one.full[...] = stored(data).reshape(-1)
        mask, result = aligned(operands[3], 0), image(output)
        library.run(f"k{i}", [*(g.address for g in guarded), mask.ctypes.data, result.address])
        (expected,) = evaluate_node(node, operands)
        assert np.array_equal(result.inner.reshape(expected.shape), stored(expected)), node


def weights_of(x: np.ndarray) -> np.ndarray:
    """rne(exp(x) * 255), 0 for NaN, of float32 [...]."""
    with np.errstate(all="ignore"):
        real = fm.exp(x) * np.float32(255)
    return np.where(real > 0, np.rint(real), np.float32(0)).astype(np.uint8)


def steps() -> np.ndarray:
    """For each weight but the largest, the largest argument that gives it or less, as bits of a negative float32."""
    low, high = np.full(255, np.float32(-20.0).view(np.uint32), np.uint32), np.full(255, 0x80000000, np.uint32)
    while np.any(low - high > 1):  # the bits of negative floats fall as the floats rise
        middle = high + (low - high) // 2
        below = weights_of(middle.view(np.float32)) <= np.arange(255)
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return low


@every_isa
def test_weights_change_where_the_definition_says(isa: Isa) -> None:
    rng = np.random.default_rng(23)
    near = (steps()[:, None] + np.arange(-40, 41)[None]).astype(np.uint32).view(np.float32).ravel()
    wide = [-rng.uniform(0, 20, 20000), -rng.exponential(1e-3, 5000), -rng.uniform(80, 200, 500)]
    special = np.array([0.0, -0.0, np.nan, -np.inf, -1e-45, -3e38, -104.0, -16.0], np.float32)
    scores = np.concatenate([np.zeros(1, np.float32), near, *(w.astype(np.float32) for w in wide), special])
    vectors = -(-scores.size // isa.lanes)
    size = -(-vectors // 4) * 4 * isa.lanes
    x = aligned(np.concatenate([scores, np.full(vectors * isa.lanes - scores.size, -np.inf, np.float32)]))
    w, rate, total = (aligned(np.zeros(n, t)) for n, t in ((size, np.uint8), (1, np.float32), (1, np.int32)))
    call = f"qc_x86_weights(p[0], {x.size}, {vectors}, p[1], {size}, 1, 2.0f, -3, p[2], p[3])"
    text = f"static void k(void* const* p, int32_t task) {{ {call}; }}"
    code = KernelCode(weights_helper(isa), text, 1, (), "weights")
    Library({"k": code}, isa).run("k", [a.ctypes.data for a in (x, w, rate, total)])
    expected = weights_of(scores)
    assert np.array_equal(w[: scores.size], expected)
    assert not w[scores.size :].any()
    assert total[0] == -3 * int(expected.sum()) and rate[0] == np.float32(2) / np.float32(int(expected.sum()))


def test_heads_too_large_for_the_stack_are_refused() -> None:
    assert TABLE.find(attention((1, 8, 128, 1, 64, 64)), VBMI) is not None
    assert TABLE.find(attention((1, 8, 4096, 1, 256, 256)), VBMI) is None
