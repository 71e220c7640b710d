"""What of a graph has to be computed when other graphs of the same model ran already.

Values are known by keys that tell what computes them: op, attributes, operands, constants.  Equal keys mean equal
values, in whatever graph they stand, so a change to one layer leaves everything before it known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Value

Key = bytes


class Keys:
    """Keys of the values of graphs; constants are hashed once, however many graphs share them."""

    def __init__(self) -> None:
        self._constants: dict[int, tuple[np.ndarray, Key]] = {}

    def of(self, graph: Graph) -> dict[Value, Key]:
        """The key of every value that depends on the graph's inputs.  Others are constants, whatever computes them."""
        found = {value: _digest(["input", value.name, repr(value.type)]) for value in graph.inputs}
        fixed: dict[Value, Key] = {}
        for node in graph.nodes:
            parts: list[str | bytes] = [node.op.name, repr(list(node.attrs.items()))]
            moving = False
            for value in node.inputs:
                if value is None:
                    parts.append("none")
                elif value.is_constant:
                    parts.append(self._constant(value))
                else:
                    parts.append(found.get(value) or fixed[value])
                    moving |= value in found
            for value in node.outputs:
                (found if moving else fixed)[value] = _digest([*parts, str(value.index)])
        return found

    def _constant(self, value: Value) -> Key:
        array = value.array
        known = self._constants.get(id(array))
        if known is None:
            content = np.ascontiguousarray(array).view(np.uint8).data if array.size else b""
            digest = _digest(["constant", repr(value.type), hashlib.blake2b(content, digest_size=16).digest()])
            known = self._constants[id(array)] = array, digest  # holding the array keeps its id from being reused
        return known[1]


@dataclass(frozen=True)
class Suffix:
    """The part of a graph that is not known.

    `graph` computes it: `inputs` has the key of the known value that each of its inputs is.  `outputs` has, for each
    output of the whole graph, the name of the suffix' value, or the key of a known one.
    """

    graph: Graph
    inputs: Mapping[str, Key]
    outputs: tuple[str | Key, ...]

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every known value that is needed."""
        return (*self.inputs.values(), *(output for output in self.outputs if isinstance(output, bytes)))


def suffix(graph: Graph, keys: Mapping[Value, Key], known: Collection[Key]) -> Suffix:
    """Cuts a graph, whose values have these keys, where they are known; the graph stays as it is."""
    whole = dict(zip(graph.values, map(keys.get, graph.values), strict=True))
    cut = graph.clone()
    twin = {value: cut.value(value.name) for value in graph.values}
    outputs: list[str | Key] = []
    rest: list[Value] = []
    for value in graph.outputs:
        key = whole[value]
        if key is not None and key in known:
            outputs.append(key)
        else:
            outputs.append(value.name)
            rest.append(twin[value])
    needed = _needed(graph, rest=[graph.value(v.name) for v in rest], keys=whole, known=known)
    inputs: dict[str, Key] = {}
    for value in needed:
        key = whole[value]
        assert key is not None
        own = twin[value]
        if value.producer is not None:
            name = cut.fresh_name(f"{value.name}.known")
            replacement = cut.input(name, value.type)
            for user, index in cut.uses(own):
                cut.set_input(user, index, replacement)
            own = replacement
        inputs[own.name] = key
    cut.outputs = rest
    cut.prune()
    cut.inputs = [value for value in cut.inputs if value.name in inputs]
    return Suffix(cut, inputs, tuple(outputs))


def _needed(
    graph: Graph, rest: list[Value], keys: Mapping[Value, Key | None], known: Collection[Key]
) -> list[Value]:
    """The known values from which the rest follows, in the order of the graph."""
    border: set[Value] = set()
    seen: set[Value] = set()
    open_values = list(rest)
    while open_values:
        value = open_values.pop()
        if value in seen or value.is_constant:
            continue
        seen.add(value)
        if value.producer is None or (keys[value] in known and value not in rest):
            border.add(value)
        else:
            open_values += [v for v in value.producer.inputs if v is not None]
    return [value for value in graph.values if value in border]


def _digest(parts: list[str | bytes]) -> Key:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()
