"""What an artifact says about itself, as a JSON object."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from qcomp import __version__
from qcomp.codegen.c.lower import Lowered
from qcomp.codegen.c.package import Options
from qcomp.codegen.plan import Step
from qcomp.codegen.plan.moves import inner_moves
from qcomp.ir import Node, Value


def describe(lowered: Lowered, options: Options, content: bytes) -> dict[str, Any]:
    """The metadata of an artifact whose constants are `content`."""
    graph, target, plan = lowered.graph, lowered.target, lowered.plan
    digest = hashlib.sha256(content)
    steps = []
    for entry in lowered.steps:
        node = entry.step.node
        digest.update(entry.code.text.encode())
        moved = _operand_bytes(entry.step)
        steps.append(
            {
                "name": node.name,
                "op": node.op.name,
                "kernel": entry.code.kernel,
                "macs": int(node.op.macs(node.call)),
                "shape": list(entry.step.outputs[0].buffer.shape),
                "bytes_moved": moved + sum(int(np.asarray(c).nbytes) for c in entry.code.constants),
                "precision": _precision(node),
            }
        )
    return {
        "format": 1,
        "qcomp": __version__,
        "model": graph.name,
        "target": target.name,
        "isa": sorted(target.features),
        "inputs": [_tensor(v) for v in graph.inputs],
        "outputs": [_tensor(v) for v in graph.outputs],
        "arena_bytes": plan.arena_bytes,
        "arena_lower_bound": plan.lower_bound,
        "weights_bytes": len(content),
        "steps": steps,
        "copied_bytes": sum(_operand_bytes(step) for step in inner_moves(plan)),
        "islands": [dict(island) for island in options.islands],
        "hash": digest.hexdigest(),
    }


def _operand_bytes(step: Step) -> int:
    return sum(math.prod(o.buffer.shape) * o.buffer.dtype.numpy.itemsize for o in (*step.inputs, *step.outputs))


def _tensor(value: Value) -> dict[str, Any]:
    quant = value.quant
    return {
        "name": value.name,
        "dtype": str(value.dtype.numpy),
        "shape": list(value.shape),
        "quantization": None if quant is None else {"scale": list(quant.scale), "zero_point": list(quant.zero_point)},
    }


def _precision(node: Node) -> str:
    """The element type that a node computes in: that of its widest operand or result that is not constant."""
    types = [v.dtype for v in node.inputs if v is not None and not v.is_constant] + [v.dtype for v in node.outputs]
    return max(types, key=lambda t: (t.is_float, t.bits)).value
