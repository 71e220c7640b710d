"""Results that lie on top of their operands as closely as kernels allow give the interpreter's bits, run by qemu.

The planner seldom places them so closely; here every result of a chain starts just as far before its operand as the
kernel's `lead` says, so that one pixel too little shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from emulators import emulated, wrong

from qcomp.codegen.build import build_library
from qcomp.codegen.c.emit import generate
from qcomp.codegen.plan import plan as planning
from qcomp.codegen.plan.place import Overlap, Placement, Slot
from qcomp.ir import DType, Graph, Quantization, TensorType, Value, verify
from qcomp.passes.fixed_requantize import FixedRequantize
from qcomp.targets import target

QUANT = Quantization.per_tensor(0.5, 3)
# Channels, kernel, groups (0: one a channel), stride, whether the operand is added before rounding, least weight.
Layer = tuple[int, tuple[int, int], int, int, bool, int]
POINT: Layer = (0, (1, 1), 1, 1, False, -127)  # as many channels as there are


def layer(
    out: int, kernel: tuple[int, int], groups: int = 1, stride: int = 1, added: bool = False, least: int = -127
) -> Layer:
    return out, kernel, groups, stride, added, least


CHAINS: dict[str, tuple[int, list[Layer]]] = {
    "grouped 1x1": (34, [layer(34, (3, 3)), layer(68, (1, 1), 2), layer(68, (1, 1), 2)]),
    "depthwise 7x7": (80, [POINT, layer(80, (7, 7), 0), layer(16, (1, 1))]),
    "depthwise with -128": (40, [POINT, layer(40, (5, 5), 0, least=-128)]),
    "depthwise and its operand": (80, [POINT, layer(80, (3, 3), 0, added=True)]),
    "strides": (7, [layer(13, (3, 3), stride=2), layer(13, (3, 3), 0), layer(31, (1, 1), stride=2)]),
    "grouped 3x3": (12, [layer(12, (3, 3), 3), layer(24, (3, 3), 4), layer(24, (1, 3), 24)]),
    "wider and narrower": (5, [layer(33, (1, 1)), layer(3, (3, 1)), layer(65, (1, 1))]),
}


def chain(channels: int, layers: Sequence[Layer], side: int = 9) -> Graph:
    rng, graph = np.random.default_rng(channels), Graph("chain")
    value: Value = graph.input("x", TensorType(DType.I8, (1, side, side, channels), QUANT))
    table = graph.constant(rng.permutation(np.arange(-128, 128)).astype(np.int8))
    value = graph.add("table", [value, table], quants=[QUANT]).output
    for outs, (kh, kw), groups, stride, added, least in layers:
        out = outs or value.shape[3]
        inner = value.shape[3] // (groups or value.shape[3])
        operands = [
            value, graph.constant(rng.integers(least, 128, (out, kh, kw, inner)).astype(np.int8)),
            graph.constant(rng.integers(-99, 99, out).astype(np.int32)),
            graph.constant(rng.uniform(1e-4, 2e-3, out).astype(np.float32)), *([None, value] if added else []),
        ]  # fmt: skip
        attrs: dict[str, object] = {
            "strides": (stride, stride), "groups": groups or value.shape[3],
            "pads": (kh // 2, kw // 2, kh // 2, kw // 2), "x_zp": 3, "zp": -5, "r_zp": 3, "r_mult": 0.5 * added,
        }  # fmt: skip
        value = graph.add("qconv2d", operands, attrs, quants=[QUANT]).output  # type: ignore[arg-type]
    pool = {"kernel": (1, 1), "strides": (1, 1), "pads": (0, 0, 0, 0), "layout": "NHWC"}
    graph.outputs.append(graph.add("max_pool", [value], pool, quants=[QUANT]).output)
    verify(graph)
    return graph


def closest(slots: Sequence[Slot], overlaps: Sequence[Overlap] = ()) -> Placement:
    """Every result just where it may start; slots that do not overlap one after the other."""
    operand = {o.result: (o.operand, o.distance) for o in overlaps}
    offsets: dict[str, int] = {}
    for slot in sorted(slots, key=lambda s: s.first):
        if slot.name in operand and operand[slot.name][1] < 0:
            name, distance = operand[slot.name]
            offsets[slot.name] = offsets[name] + distance
        else:
            offsets[slot.name] = max((offsets[s.name] + s.size for s in slots if s.name in offsets), default=0)
    least = min(offsets.values())
    offsets = {name: offset - least for name, offset in offsets.items()}
    return Placement(offsets, max(offsets[s.name] + s.size for s in slots))


@emulated("cortex-m4")
@pytest.mark.parametrize("name", ["cortex-m3", "cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("which", CHAINS)
def test_chains(name: str, which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain(*CHAINS[which])
    if target(name).requantize == "fixed":
        FixedRequantize().run(graph)
    overlapped: list[Overlap] = []

    def place(slots: Sequence[Slot], overlaps: Sequence[Overlap] = ()) -> Placement:
        overlapped.extend(overlaps)
        return closest(slots, overlaps)

    monkeypatch.setattr(planning, "place", place)
    path = build_library(generate(graph, target(name)), tmp_path / "model.elf")
    assert overlapped
    feed = {"x": np.random.default_rng(5).integers(-128, 128, graph.inputs[0].shape).astype(np.int8)}
    assert wrong(graph, feed, path) == []


@emulated("cortex-m4")
def test_dense_layers_of_thousands_of_inputs(tmp_path: Path) -> None:
    rng, graph = np.random.default_rng(1), Graph("dense")
    for depth in (4100, 4112, 8196):
        x = graph.input(f"x{depth}", TensorType(DType.I8, (2, depth), QUANT))
        copied = graph.add("table", [x, graph.constant(np.arange(-128, 128).astype(np.int8))], quants=[QUANT]).output
        operands = [
            copied, graph.constant(rng.integers(-127, 128, (3, depth)).astype(np.int8)),
            graph.constant(np.zeros(3, np.int32)), graph.constant(np.full(3, 1e-4, np.float32)),
        ]  # fmt: skip
        graph.outputs.append(graph.add("qgemm", operands, {"x_zp": 3}, quants=[QUANT]).output)
    feeds = {v.name: rng.integers(-128, 128, v.shape).astype(np.int8) for v in graph.inputs}
    assert wrong(graph, feeds, build_library(generate(graph, target("cortex-m4")), tmp_path / "m.elf")) == []
