"""What an artifact says about itself, as a JSON object."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qcomp import __version__
from qcomp.codegen.c.lower import Built, Lowered
from qcomp.codegen.c.package import Options
from qcomp.codegen.plan import Step
from qcomp.codegen.plan.moves import inner_moves
from qcomp.ir import Node, Value


def describe(lowered: Lowered, options: Options, content: bytes) -> dict[str, Any]:
    """The metadata of an artifact whose constants are `content`."""
    graph = lowered.graph
    digest = hashlib.sha256(content)
    for entry in lowered.steps:
        digest.update(entry.code.text.encode())
    return {
        "format": 1,
        "qcomp": __version__,
        "model": graph.name,
        "inputs": [_tensor(v) for v in graph.inputs],
        "outputs": [_tensor(v) for v in graph.outputs],
        "weights_bytes": len(content),
        "islands": [dict(island) for island in options.islands],
        "hash": digest.hexdigest(),
        **_of_target(lowered),
    }


def describe_levels(levels: Sequence[Lowered], options: Options, content: bytes) -> dict[str, Any]:
    """The metadata of an artifact of several levels, the best first: that of the last one, and "levels", a row each."""
    whole = describe(levels[-1], options, content)
    digest = hashlib.sha256(whole["hash"].encode())
    for lowered in levels[:-1]:
        digest.update(lowered.target.name.encode())
        for entry in lowered.steps:
            digest.update(entry.code.text.encode())
    return {**whole, "hash": digest.hexdigest(), "levels": [_of_target(lowered) for lowered in levels]}


def _of_target(lowered: Lowered) -> dict[str, Any]:
    """What depends on the target."""
    return {
        "target": lowered.target.name,
        "isa": sorted(lowered.target.features),
        "arena_bytes": lowered.plan.arena_bytes,
        "arena_lower_bound": lowered.plan.lower_bound,
        "steps": [_step(entry) for entry in lowered.steps],
        "copied_bytes": sum(_operand_bytes(step) for step in inner_moves(lowered.plan)),
    }


def _step(built: Built) -> dict[str, Any]:
    node = built.step.node
    return {
        "name": node.name,
        "op": node.op.name,
        "kernel": built.code.kernel,
        "macs": int(node.op.macs(node.call)),
        "shape": list(built.step.outputs[0].buffer.shape),
        "bytes_moved": _operand_bytes(built.step) + sum(int(np.asarray(c).nbytes) for c in built.code.constants),
        "precision": _precision(node),
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
