"""What a mix of precisions costs: milliseconds and bytes, by a model that adds up over the layers.

A layer takes macs / rate of its precision + bytes moved / rate of bytes, with the rates of the target (`[rates]` in its
file, of one core); moved are its weights, operands and result, in the width of its precision.  Its size is that of its
constants: int8 weights with a bias and a multiplier for each channel, or float32 weights.  Code comes on top.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from qcomp.ir.graph import Graph
from qcomp.ir.types import DType
from qcomp.passes.precision import PRECISIONS
from qcomp.targets import Target

# For targets without rates: how precisions compare, in no unit of time.
_NO_RATES: Mapping[str, float] = {"int8": 4.0, "float32": 1.0, "bytes": 1.0}
_BYTES_PER_CHANNEL = {"int8": 6, "float32": 4}


@dataclass(frozen=True)
class Costs:
    """All in int8, and what each layer adds in float32; `timed` says whether milliseconds are meant."""

    timed: bool
    int8_ms: float
    int8_bytes: int
    extra_ms: Mapping[str, float]
    extra_bytes: Mapping[str, int]

    def milliseconds(self, floats: Collection[str]) -> float:
        return self.int8_ms + sum(self.extra_ms[name] for name in self.extra_ms if name in floats)

    def bytes(self, floats: Collection[str]) -> int:
        return self.int8_bytes + sum(self.extra_bytes[name] for name in self.extra_bytes if name in floats)


def modelled_costs(graph: Graph, layers: Collection[str], target: Target) -> Costs:
    """The costs of a canonical float graph by the target's rates; `layers` names what int8 has a form for."""
    rates = target.rates or _NO_RATES
    milliseconds, sizes = 0.0, 0
    extra_ms, extra_bytes = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0)
    for node in graph.nodes:
        tensors = [v for v in (*node.inputs, *node.outputs) if v is not None]
        elements = sum(v.type.elements for v in tensors)
        parameters = [v for v in node.inputs if v is not None and v.is_constant and v.dtype is DType.F32]
        weights = max(parameters, key=lambda v: v.type.elements, default=None)
        count = 0 if weights is None else weights.type.elements
        macs = node.op.macs(node.call)
        channels = node.output.shape[1] if macs and weights is not None and node.output.type.rank > 1 else 0
        times, bytes_of = {}, {}
        for name, dtype in PRECISIONS.items():
            moved = elements * dtype.numpy.itemsize / rates["bytes"] if node.name in extra_ms else 0.0
            times[name] = (macs / rates[name] + moved) / 1e6
            bytes_of[name] = count * dtype.numpy.itemsize + channels * _BYTES_PER_CHANNEL[name]
        own = "int8" if node.name in extra_ms else "float32"
        milliseconds, sizes = milliseconds + times[own], sizes + bytes_of[own]
        if node.name in extra_ms:
            extra_ms[node.name] += max(times["float32"] - times["int8"], 0.0)
            extra_bytes[node.name] += max(bytes_of["float32"] - bytes_of["int8"], 0)
    return Costs(bool(target.rates), milliseconds, sizes, extra_ms, extra_bytes)
