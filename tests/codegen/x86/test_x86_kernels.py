"""The x86 vector rows of the kernel table: what they accept, and that their code gives the interpreter's integers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from x86_harness import Image, Library, every_isa, every_tiles

from qcomp.codegen.c.kernel import Kernel, KernelRequest, KernelTable
from qcomp.codegen.c.vector.views import plane
from qcomp.codegen.c.x86 import amx
from qcomp.codegen.c.x86.isa import AVX2, AVX512, AVX512_VBMI, AVXVNNI, Isa
from qcomp.codegen.c.x86.kernels import X86_KERNELS
from qcomp.codegen.plan.buffer import NO_HALO, Buffer, Halo, union_halo
from qcomp.ir import DType, Graph, Node, Quantization, TensorType
from qcomp.ir.interpreter import evaluate_node
from qcomp.targets import Target, target

VBMI = target("x86_64-avx512vbmi")
MACHINES = {
    AVX512_VBMI: VBMI,
    AVX512: target("x86_64-avx512vnni"),
    AVXVNNI: target("x86_64-avxvnni"),
    AVX2: target("x86_64-avx2"),
}
TABLE = KernelTable(X86_KERNELS)
EXTRA: Halo = (1, 0, 2, 1)


@dataclass
class Builder:
    """Nodes of one op each, with random constants."""

    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    graph: Graph = field(default_factory=Graph)
    nodes: list[Node] = field(default_factory=list)

    def i8(self, *shape: int, low: int = -128) -> np.ndarray:
        return self.rng.integers(low, 128, shape, dtype=np.int8)

    def add(self, op: str, operands: list[tuple[int, ...] | np.ndarray | None], of: DType = DType.I8,
            quant: Quantization | None = None, **attrs: object) -> None:  # fmt: skip
        """Shapes become graph inputs of type `of`, arrays become constants."""
        values = []
        for operand in operands:
            name = self.graph.fresh_name("v")
            if operand is None:
                values.append(None)
            elif isinstance(operand, tuple):
                values.append(self.graph.input(name, TensorType(of, operand, quant)))
            else:
                values.append(self.graph.constant(operand))
        self.nodes.append(self.graph.add(op, values, attrs))

    def product(self, op: str, x: tuple[int, ...], w: tuple[int, ...], table: bool = False, residual: bool = False,
                **attrs: object) -> None:  # fmt: skip
        """With `residual`, of a convolution whose result has the size of x."""
        out, taps = w[0], int(np.prod(w[1:]))
        bias = self.rng.integers(-5000, 5000, out, dtype=np.int32)
        mult = (self.rng.uniform(0.4, 1.2, out) / (70 * 127 * np.sqrt(taps))).astype(np.float32)
        extra = [self.i8(256) if table else None, (*x[:-1], out) if residual else None]
        self.add(op, [x, self.i8(*w, low=-127), bias, mult, *extra], **attrs)


def nodes() -> list[Node]:
    """One node of every op, and of the forms that the adapters tell apart."""
    b = Builder()
    window = {"strides": (2, 1), "pads": (1, 2, 0, 1)}
    arithmetic = {"x_zp": -11, "zp": 6, "lo": -100, "hi": 90}
    b.product("qconv2d", (2, 9, 8, 5), (17, 3, 4, 5), dilations=(1, 1), **window, **arithmetic)
    b.product("qconv2d", (1, 9, 9, 5), (33, 3, 3, 5), table=True, dilations=(2, 2), **arithmetic)
    b.product("qconv2d", (1, 6, 6, 24), (24, 3, 3, 1), groups=24, pads=(1, 1, 1, 1), **arithmetic)
    b.product("qconv2d", (1, 6, 6, 70), (70, 3, 3, 1), table=True, groups=70, pads=(1, 1, 1, 1), **arithmetic)
    b.product("qconv2d", (1, 6, 6, 24), (24, 3, 3, 1), groups=24, dtype=DType.F32, x_zp=3)
    b.product("qconv2d", (1, 6, 6, 24), (48, 3, 3, 6), groups=4, **window, **arithmetic)
    residual = {"r_zp": 5, "r_mult": float(np.float32(0.7)), **arithmetic}
    b.product("qconv2d", (1, 6, 6, 5), (70, 1, 1, 5), residual=True, **residual)
    b.product("qconv2d", (2, 5, 6, 8), (16, 3, 3, 8), table=True, residual=True, pads=(1, 1, 1, 1), **residual)
    b.product("qconv2d", (1, 6, 6, 24), (24, 3, 3, 1), residual=True, groups=24, pads=(1, 1, 1, 1), **residual)
    b.product("qgemm", (3, 70), (50, 70), **arithmetic)
    b.product("qgemm", (2, 3, 5, 65), (10, 65), dtype=DType.F32, x_zp=-128)
    b.product("qgemm", (1, 2, 3, 4), (7, 4), table=True, **arithmetic)
    both = {"a_zp": 4, "b_zp": -128, "zp": -3, "lo": -128, "hi": 127}
    mults = {"a_mult": float(np.float32(0.37)), "b_mult": float(np.float32(0.81))}
    b.add("qadd", [(2, 3, 4, 33), (2, 3, 4, 33)], **both, **mults)
    b.add("qadd", [(2, 3, 4, 33), (2, 1, 1, 33), b.i8(256)], **both, **mults)
    b.add("qadd", [b.i8(33), (2, 3, 4, 33)], **both, **mults)
    b.add("qadd", [(5, 77), (5, 77)], **both, **mults)
    b.add("qmul", [(2, 3, 4, 40), (2, 1, 1, 40)], mult=float(np.float32(0.013)), **both)
    b.add("qmul", [(2, 3, 4, 40), b.i8(2, 3, 4, 40), b.i8(256)], mult=float(np.float32(0.013)), **both)
    b.add("table", [(2, 3, 4, 9), b.i8(256)])
    b.add("table", [(100,), b.i8(256)])
    quant = Quantization((float(np.float32(0.02)),), (-7,))
    graph_input = b.graph.input("real", TensorType(DType.F32, (2, 3, 4, 9)))
    b.nodes.append(b.graph.add("quantize", [graph_input], {"quant": quant}))
    b.add("dequantize", [(2, 3, 4, 9)], quant=quant)
    b.add("transpose", [(2, 3, 5, 33)], perm=(0, 2, 3, 1))
    b.add("transpose", [(1, 21, 3, 13)], DType.F32, perm=(0, 3, 1, 2))
    b.add("transpose", [(2, 3, 8, 40)], DType.F32, perm=(0, 3, 1, 2))
    b.add("transpose", [(17, 600)], DType.F32, perm=(1, 0))
    b.add("max_pool", [(1, 7, 8, 20)], kernel=(3, 2), layout="NHWC", **window)
    pool = {"kernel": (3, 2), "ratio": 1.7, **window, **arithmetic}
    b.add("qavg_pool", [(1, 7, 8, 20)], count_include_pad=False, **pool)
    b.add("qavg_pool", [(1, 7, 8, 20)], count_include_pad=True, **pool)
    weighing = {"q_zp": 3, "k_zp": -9, "v_zp": 17, "scale": 2.0**-14, "mult": 0.75, "zp": 5, "lo": -90, "hi": 100}
    b.add("qattention", [(2, 9, 3, 20), (2, 33, 3, 20), (2, 33, 3, 18)], **weighing)
    b.add("qattention", [(1, 16, 2, 32), (1, 64, 2, 32), (1, 64, 2, 32)], dtype=DType.F32, **weighing)
    b.add("qmatmul", [(2, 3, 9, 70), (3, 70, 33)], a_zp=7, b_zp=-3, mult=2.0**-11, zp=5, lo=-90, hi=100)
    b.add("layer_norm", [(3, 5, 40), *b.rng.normal(0, 1, (2, 40)).astype(np.float32)], DType.F32, axis=2)
    b.add("softmax", [(7, 100)], DType.F32, axis=1)
    b.add("qavg_pool", [(2, 7, 8, 100)], kernel=(7, 8), ratio=0.9, **arithmetic)
    return b.nodes


def layout(node: Node, kernel: Kernel, extra: Halo) -> tuple[list[Buffer], Buffer]:
    """Buffers with the padding that the kernel wants, and `extra` more where an image can have it."""
    wanted = iter(kernel.halo(node))
    inputs = []
    for value in node.inputs:
        if value is not None and not value.is_constant:
            room = extra if len(value.shape) == 4 and value.dtype is DType.I8 else NO_HALO
            inputs.append(Buffer(value.dtype, value.shape, union_halo(next(wanted), room)))
    y = node.output
    return inputs, Buffer(y.dtype, y.shape, extra if len(y.shape) == 4 and y.dtype is DType.I8 else NO_HALO)


def image(buffer: Buffer, fill: int = 0) -> Image:
    return Image(plane(buffer), np.uint8 if buffer.dtype is DType.I8 else np.float32, fill)


EXTRAS = pytest.mark.parametrize("extra", [NO_HALO, EXTRA], ids=["dense", "halo"])


@every_isa
@EXTRAS
def test_every_row_of_the_table_computes_what_the_interpreter_computes(isa: Isa, extra: Halo) -> None:
    check_nodes(MACHINES[isa], isa, extra)


@every_tiles
@EXTRAS
@pytest.mark.parametrize("always", [True, False], ids=["always", "chosen"])
def test_rows_for_amx_compute_what_the_interpreter_computes(
    tiles: str, extra: Halo, always: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if always:
        monkeypatch.setattr(amx, "tiles_are_faster", lambda shape, residual, isa: True)
    check_nodes(target("x86_64-amx"), AVX512_VBMI, extra, tiles)


def check_nodes(machine: Target, isa: Isa, extra: Halo, tiles: str = "") -> None:
    cases, codes = nodes(), {}
    for i, node in enumerate(cases):
        kernel = TABLE.select(node, machine)
        inputs, output = layout(node, kernel, extra)
        codes[f"k{i}"] = kernel.generate(KernelRequest(node, tuple(inputs), (output,), machine, f"k{i}"))
    library = Library(codes, isa, tiles)
    rng = np.random.default_rng(8)
    for i, node in enumerate(cases):
        kernel = TABLE.select(node, machine)
        inputs, output = layout(node, kernel, extra)
        images, operands, moving = [], [], iter(inputs)
        for value in node.inputs:
            if value is None or value.is_constant:
                operands.append(None if value is None else value.array)
                continue
            buffer = next(moving)
            if value.dtype is DType.I8:
                data = rng.integers(-128, 128, value.shape, dtype=np.int8)
                images.append(image(buffer, kernel.halo_fill(node) + 128))
                images[-1].inner[...] = (data.view(np.uint8) ^ 0x80).reshape(images[-1].inner.shape)
            else:
                data = rng.normal(0, 2, value.shape).astype(np.float32)
                images.append(image(buffer))
                images[-1].inner[...] = data.reshape(images[-1].inner.shape)
            operands.append(data)
        result = image(output)
        before = result.outside()
        library.run(f"k{i}", [x.address for x in (*images, result)])
        (expected,) = evaluate_node(node, operands)
        got = result.inner.reshape(expected.shape)
        got = (got ^ 0x80).view(np.int8) if expected.dtype == np.int8 else got
        assert np.array_equal(got, expected), node
        assert np.array_equal(result.outside(), before), node


# tests/codegen/test_dynamic_kernels.py and test_recurrent_kernels.py
ELSEWHERE = {"dynamic_qgemm", "lstm", "gru", "rescale", "qlayer_norm"}  # files of their own have these


def test_every_op_of_the_integer_contract_has_a_row() -> None:
    assert {kernel.op for kernel in X86_KERNELS} - ELSEWHERE == {node.op.name for node in nodes()}


def test_rows_refuse_what_they_cannot_compute() -> None:
    b = Builder()
    b.add("qadd", [(2, 3, 4, 8), (2, 3, 4, 1)], a_mult=0.5, b_mult=0.5)  # broadcast over channels
    b.add("max_pool", [(1, 8, 4, 4)], kernel=(2, 2), layout="NCHW")
    b.add("max_pool", [(1, 4, 4, 8)], DType.F32, kernel=(2, 2), layout="NHWC")
    b.add("transpose", [(1, 5, 4, 4)], perm=(0, 2, 3, 1))
    w, big = np.full((1, 4), -127, np.int8), np.full(1, 2**31 - 1, np.int32)
    b.add("qgemm", [(1, 4), w, big, np.ones(1, np.float32)], x_zp=127)  # folded bias leaves int32
    assert [TABLE.find(node, VBMI) for node in b.nodes] == [None] * 5


def test_a_target_without_the_features_or_with_signed_storage_gets_no_row() -> None:
    others = [target("x86_64"), target("aarch64"), target("generic")]
    assert all(TABLE.find(node, machine) is None for node in nodes() for machine in others)


def test_code_is_the_same_in_every_run() -> None:
    def text() -> list[tuple[object, ...]]:
        found = []
        for node in nodes():
            kernel = TABLE.select(node, VBMI)
            inputs, output = layout(node, kernel, NO_HALO)
            code = kernel.generate(KernelRequest(node, tuple(inputs), (output,), VBMI, "k"))
            found.append((code.text, code.helpers, code.tasks, [c.tobytes() for c in code.constants]))
        return found

    assert text() == text()
