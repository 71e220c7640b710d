"""layer_norm and softmax by vectors give the interpreter's bits, for rows of every length, in place too."""

from __future__ import annotations

import numpy as np
import pytest
from test_x86_kernels import MACHINES, TABLE, VBMI
from x86_harness import Guarded, Library, aligned, every_isa

from qcomp.codegen.c.kernel import KernelRequest
from qcomp.codegen.c.vector.shapes import Plane
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.plan.buffer import Buffer
from qcomp.ir import DType, Graph, Node, TensorType
from qcomp.ir.interpreter import evaluate_node

LENGTHS = [1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 33, 63, 64, 65, 127, 128, 130, 384, 1000, 6625]


def layer_norm(shape: tuple[int, ...], axis: int, biased: bool, epsilon: float = 1e-5) -> Node:
    rng, graph = np.random.default_rng(len(shape)), Graph()
    x = graph.input("x", TensorType(DType.F32, shape))
    factors = [graph.constant(rng.normal(1, 0.3, shape[axis:]).astype(np.float32)) for _ in range(1 + biased)]
    return graph.add("layer_norm", [x, *factors], {"axis": axis, "epsilon": epsilon})


def softmax(shape: tuple[int, ...]) -> Node:
    graph = Graph()
    return graph.add("softmax", [graph.input("x", TensorType(DType.F32, shape))], {"axis": len(shape) - 1})


def cases() -> list[Node]:
    norms = [layer_norm((2, 3, n), 2, n % 3 > 0, 0.0 if n % 5 == 0 else 1e-5) for n in LENGTHS[:-1]]
    blocks = [layer_norm((5, 3, 11), 1, True), layer_norm((9, 40), 1, True)]
    return [*norms, *blocks, *(softmax((3, 2, n) if n < 100 else (2, n)) for n in LENGTHS)]


def reals(rng: np.random.Generator, shape: tuple[int, ...], special: bool) -> np.ndarray:
    x = rng.normal(0, rng.choice([0.01, 3, 40]), shape).astype(np.float32)
    if special:
        odd = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, -0.0, 1e-45, -90, -100], np.float32)
        x = np.where(rng.integers(0, 40, shape) == 0, rng.choice(odd, shape), x)
    return x.astype(np.float32)


@every_isa
@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
def test_rows_of_every_length(isa: Isa, special: bool) -> None:
    rng, nodes, codes = np.random.default_rng(31), cases(), {}
    for i, node in enumerate(nodes):
        kernel = TABLE.select(node, MACHINES[isa])
        assert kernel.in_place(node) == (0,)
        buffer = Buffer(DType.F32, node.output.shape, external=True)
        codes[f"k{i}"] = kernel.generate(KernelRequest(node, (buffer,), (buffer,), MACHINES[isa], f"k{i}"))
    library = Library(codes, isa)
    for i, node in enumerate(nodes):
        x = reals(rng, node.output.shape, special)
        operands = [x, *(v.array for v in node.inputs[1:] if v is not None)]
        (expected,) = evaluate_node(node, operands)
        y, same = aligned(np.full(x.size + 16, 7, np.float32)), aligned(x)
        # nothing may be read past the end: the input ends where a page that cannot be read begins
        guarded = Guarded(Plane(1, 1, 1, 4 * x.size), True)
        moved = guarded.raw[guarded.full.ctypes.data - guarded.raw.ctypes.data + 64 :][: 4 * x.size]
        moved[...] = x.reshape(-1).view(np.uint8)
        library.run(f"k{i}", [moved.ctypes.data, y.ctypes.data])
        assert np.array_equal(y[: x.size].reshape(x.shape), expected, equal_nan=True), node
        assert np.all(y[x.size :] == 7), node
        library.run(f"k{i}", [same.ctypes.data, same.ctypes.data])
        assert np.array_equal(same, expected, equal_nan=True), node


def test_what_the_rows_refuse() -> None:
    graph = Graph()
    x = graph.input("x", TensorType(DType.F32, (2, 8, 4)))
    one = graph.constant(np.ones(1, np.float32))
    assert TABLE.find(graph.add("softmax", [x], {"axis": 1}), VBMI) is None
    assert TABLE.find(graph.add("layer_norm", [x, one], {"axis": 2}), VBMI) is None
