"""Removes channels of integer tensors that always hold one number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcomp.ir.graph import Graph, Value
from qcomp.ir.types import DType
from qcomp.passes.base import Pass
from qcomp.passes.channel_surgery import (
    absorbs,
    channel_bounds,
    drop_inputs,
    folded_bias,
    keep_outputs,
    root_and_chain,
)
from qcomp.passes.range_analysis import Ranges, analyze_ranges

PRODUCTS = ("qconv2d", "qconv_transpose2d", "qgemm")


@dataclass(frozen=True)
class DeadChannels:
    """Channels of an integer tensor that hold the same number whatever the input: which, and what they hold.

    `removable` are those that every user can turn into a bias; `why` says what keeps the others.
    """

    value: str
    channels: tuple[int, ...]
    constants: tuple[int, ...]
    removable: tuple[int, ...]
    why: str = ""


def find_dead_channels(graph: Graph, ranges: Ranges | None = None) -> tuple[DeadChannels, ...]:
    """Dead channels of every int8 value that a product computes or uses, in graph order."""
    ranges = analyze_ranges(graph) if ranges is None else ranges
    found = []
    for node in graph.nodes:
        for value in node.outputs:
            users = graph.users(value)
            relevant = node.op.name in PRODUCTS or any(u.op.name in PRODUCTS for u in users)
            if value.dtype is not DType.I8 or not value.shape or not relevant:
                continue
            dead = _dead_of(graph, value, ranges)
            if dead is not None:
                found.append(dead)
    return tuple(found)


def _dead_of(graph: Graph, value: Value, ranges: Ranges) -> DeadChannels | None:
    bounds = channel_bounds(ranges[value], value.shape[-1])
    if bounds is None:
        return None
    dead = np.flatnonzero(bounds[0] == bounds[1])
    if not dead.size:
        return None
    constants = tuple(int(bounds[0][c]) for c in dead)
    channels = tuple(int(c) for c in dead)
    users = graph.users(value)
    if graph.is_output(value) or not users:
        return DeadChannels(value.name, channels, constants, (), "it is an output of the model")
    if root_and_chain(graph, value) is None:
        return DeadChannels(value.name, channels, constants, (), "its channels do not come from one product")
    if any(user.input(0) is not value or len([v for v in user.inputs if v is value]) != 1 for user in users):
        return DeadChannels(value.name, channels, constants, (), f"{users[0].op.name} uses it as another operand")
    removable = tuple(
        c for c, k in zip(channels, constants, strict=True) if all(absorbs(user, k) for user in users)
    )
    blocker = next((u for u in users if not all(absorbs(u, k) for k in constants)), None)
    why = "" if blocker is None else f"{blocker.op.name} {blocker.name!r} cannot turn them into a bias"
    return DeadChannels(value.name, channels, constants, removable, why)


@dataclass(frozen=True)
class RemoveDeadChannels(Pass):
    """Removes constant channels between products; what they add goes into the bias of the products that use them.

    `multiple` keeps channel counts divisible by it, where they were: vectors should stay full.

    before:
        %a: i8[1,4,4,8] = qconv2d(%x, %w, %bias, %mult)
        %y: i8[1,4,4,2] = qconv2d(%a, %v, %c, %n)
    after, with two dead channels:
        %a: i8[1,4,4,6] = qconv2d(%x, %w.1, %bias.1, %mult.1)
        %y: i8[1,4,4,2] = qconv2d(%a, %v.1, %c.1, %n)
    """

    multiple: int = 1

    name = "remove-dead-channels"
    exact = True

    def run(self, graph: Graph) -> Graph:
        while True:
            ranges = analyze_ranges(graph)
            if not any(self._remove(graph, dead) for dead in find_dead_channels(graph, ranges) if dead.removable):
                return graph

    def _remove(self, graph: Graph, dead: DeadChannels) -> bool:
        value = graph.value(dead.value)
        total = value.shape[-1]
        count = min(len(dead.removable), total - 1)
        if total % self.multiple == 0:
            count -= count % self.multiple
        if count == 0:
            return False
        holds = dict(zip(dead.channels, dead.constants, strict=True))
        gone = np.asarray(dead.removable[:count])
        users = graph.users(value)
        biases = [folded_bias(user, gone, [holds[int(c)] for c in gone]) for user in users]
        if any(np.abs(bias).max() >= 2**31 for bias in biases):
            return False
        keep = np.setdiff1d(np.arange(total), gone)
        found = root_and_chain(graph, value)
        assert found is not None
        root, chain = found
        thin = keep_outputs(graph, root, keep, root.input(0))
        for node in chain:
            thin = keep_outputs(graph, node, keep, thin)
        for user, bias in zip(users, biases, strict=True):
            graph.replace(user, drop_inputs(graph, user, keep, bias, thin))
        graph.prune()
        return True
