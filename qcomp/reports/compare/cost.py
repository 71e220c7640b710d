"""What a run costs besides time: multiply-accumulates, bytes moved, and an estimate of energy.

The energies are those of M. Horowitz, "Computing's Energy Problem (and what we can do about it)", ISSCC 2014,
figure 1.1.9: 45 nm, 0.9 V.  They rank programs; they are not a measurement of any machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from qcomp.ir.graph import Graph, Node, Value
from qcomp.passes.integer_regions import is_unary
from qcomp.reports.coverage import INTEGER_OPS
from qcomp.runtime.artifact import ArtifactInfo, StepInfo

SOURCE = "M. Horowitz, Computing's Energy Problem, ISSCC 2014 (45 nm, 0.9 V)"
#: Picojoules of one multiply-accumulate: int8 multiply 0.2 + int32 add 0.1; float32 multiply 3.7 + add 0.9.
INT8_MAC_PJ = 0.2 + 0.1
FLOAT_MAC_PJ = 3.7 + 0.9
#: Picojoules a byte: 64 bits from a cache of 1 MB take 100 pJ, from DRAM 1.3 nJ (the lower end).
CACHE_BYTE_PJ = 100 / 8
DRAM_BYTE_PJ = 1300 / 8
#: Weights above this size come from DRAM in every run.
CACHE_BYTES = 1 << 20
_VIEWS = frozenset({"reshape", "identity"})


@dataclass(frozen=True)
class Cost:
    """Of one run: multiply-accumulates by precision, bytes of activations read and written, bytes of weights read."""

    int8_macs: int
    float_macs: int
    activation_bytes: int
    weight_bytes: int

    @property
    def bytes_moved(self) -> int:
        return self.activation_bytes + self.weight_bytes

    @property
    def arithmetic_uj(self) -> float:
        """Microjoules of the multiply-accumulates."""
        return (self.int8_macs * INT8_MAC_PJ + self.float_macs * FLOAT_MAC_PJ) / 1e6

    @property
    def traffic_uj(self) -> float:
        """Microjoules of the traffic: activations from a cache, weights from DRAM where they exceed it."""
        a_weight_byte = DRAM_BYTE_PJ if self.weight_bytes > CACHE_BYTES else CACHE_BYTE_PJ
        return (self.activation_bytes * CACHE_BYTE_PJ + self.weight_bytes * a_weight_byte) / 1e6

    @property
    def energy_uj(self) -> float:
        return self.arithmetic_uj + self.traffic_uj


def is_integer_step(step: StepInfo) -> bool:
    """Whether the products of a step are of integers, whatever its result is."""
    return step.op in INTEGER_OPS


def artifact_cost(info: ArtifactInfo) -> Cost:
    """From the steps that the artifact lists."""
    moved = sum(step.bytes_moved for step in info.steps)
    return Cost(
        int8_macs=sum(step.macs for step in info.steps if is_integer_step(step)),
        float_macs=sum(step.macs for step in info.steps if not is_integer_step(step)),
        activation_bytes=max(0, moved - info.weights_bytes),
        weight_bytes=min(moved, info.weights_bytes),
    )


def float_cost(graph: Graph) -> Cost:
    """Of the float graph, every op once: functions of one element are fused into what makes their operand, and views
    move nothing, as every engine has it."""
    moved = weights = macs = 0
    seen: set[Value] = set()
    for node in graph.nodes:
        macs += node.op.macs(node.call)
        for value in node.inputs:
            if value is not None and value.is_constant and value not in seen:
                seen.add(value)
                weights += value.type.bytes
        if node.op.name not in _VIEWS:
            moved += sum(v.type.bytes for v in _read(graph, node)) + sum(v.type.bytes for v in _written(graph, node))
    return Cost(0, macs, moved, weights)


def _fuses(graph: Graph, value: Value) -> bool:
    """Whether a value never reaches memory: one function of an element reads it, and nothing else."""
    user = graph.sole_user(value)
    return user is not None and is_unary(user) and value.producer is not None and not graph.is_output(value)


def _read(graph: Graph, node: Node) -> Iterable[Value]:
    return [v for v in node.inputs if v is not None and not v.is_constant and not _fuses(graph, v)]


def _written(graph: Graph, node: Node) -> Iterable[Value]:
    return [v for v in node.outputs if not _fuses(graph, v)]
