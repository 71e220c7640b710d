"""equalize-channels: moves a factor for each channel from a value into the weights of the products that read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Node, Value
from qcomp.passes.base import Pass
from qcomp.passes.integer_regions import PRODUCTS, is_product
from qcomp.passes.matching import channel_axis, plain_name, weight_axis

# f(s·x) = s·f(x) for s > 0, on each channel alone.
_HOMOGENEOUS = frozenset({"relu", "leaky_relu", "max_pool", "avg_pool", "identity"})


@dataclass(frozen=True)
class Site:
    """A value whose channels may be scaled: `source` computes it, up to homogeneous ops; only `readers` use it.

    `scaled` are the values from the source's result to `value`, both included.
    """

    value: Value
    axis: int
    source: Node
    readers: tuple[Node, ...]
    scaled: tuple[Value, ...] = ()

    @property
    def channels(self) -> int:
        return self.value.shape[self.axis]


def equalizable(graph: Graph) -> list[Site]:
    """The sites of a float graph, in its order: product or layer norm, homogeneous ops, products with own weights."""
    return [site for node in graph.nodes if (site := _site(graph, node)) is not None]


def _site(graph: Graph, source: Node) -> Site | None:
    if not _can_divide(source):
        return None
    value = source.output
    axis = value.type.rank - 1 if source.op.name == "layer_norm" else channel_axis(source)
    scaled = [value]
    while not graph.is_output(value):
        users = graph.users(value)
        if users and all(_can_multiply(user, value, axis) for user in users):
            return Site(value, axis, source, users, tuple(scaled))
        user = graph.sole_user(value)
        if user is None:
            return None
        if user.op.name == "reshape" and axis == value.type.rank - 1 and user.output.shape[-1:] == value.shape[-1:]:
            axis = user.output.type.rank - 1
        elif user.op.name not in _HOMOGENEOUS or user.output.type.rank != value.type.rank:
            return None
        value = user.output
        scaled.append(value)
    return None


def _can_divide(node: Node) -> bool:
    if node.op.name == "layer_norm":
        scale, bias = node.optional(1), node.optional(2)
        constant = scale is not None and scale.is_constant and (bias is None or bias.is_constant)
        return constant and scale is not None and scale.shape == node.output.shape[-1:]
    if node.op.name == "conv_transpose2d" and node.attrs["groups"] != 1:
        return False
    bias = node.optional(2)
    return is_product(node) and node.input(1).is_constant and (bias is None or bias.is_constant)


def _can_multiply(node: Node, value: Value, axis: int) -> bool:
    if node.op.name not in PRODUCTS or not is_product(node) or not node.input(1).is_constant:
        return False
    if [v for v in node.inputs if v is value] != [value] or node.input(0) is not value:
        return False
    return axis == (1 if node.op.name == "gemm" or node.attrs["layout"] == "NCHW" else 3)


_ATTRIBUTE = "equalized"


def divided_values(graph: Graph) -> frozenset[str]:
    """Names of the values whose channels were divided: they are not what the model calls so any more."""
    names = graph.attrs.get(_ATTRIBUTE, ())
    assert isinstance(names, tuple)
    return frozenset(map(str, names))


@dataclass(frozen=True)
class EqualizeChannels(Pass):
    """Divides channels of a value by factors and multiplies the weights that meet them by the same.

    Before: %a = conv2d(%x, %w, %b)              with factors a: [1, 0.01]
            %y = conv2d(%a, %v)
    After:  %a = conv2d(%x, %w.1, %b.1)          output channel 1 of %w and %b times 100
            %y = conv2d(%a, %v.1)                input channel 1 of %v times 0.01

    The result is the same but for float32's rounding; a grid for the whole of %a now fits both channels.  Between may
    lie ops through which positive factors pass (relu, leaky_relu, pools), and the source may be a layer norm
    (cross-layer equalization: Nagel et al. 2019; SmoothQuant: Xiao et al. 2022).  The graph's attribute `equalized`
    names the values that no longer are what the model calls so.
    """

    name: ClassVar[str] = "equalize-channels"
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = 1e-3

    factors: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def run(self, graph: Graph) -> Graph:
        sites = {site.value.name: site for site in equalizable(graph)}
        for name, given in self.factors.items():
            if name not in sites:
                raise QcompError(f"%{name} is not between a product and products", fix="name a value that is")
            factors = np.asarray(given, np.float64)
            if factors.shape != (sites[name].channels,) or not (np.isfinite(factors) & (factors > 0)).all():
                raise QcompError(f"factors of %{name} are not {sites[name].channels} positive numbers")
            _divide(graph, sites[name].source, factors)
            for node in sites[name].readers:
                _replace(graph, node, 1, multiplied(node, factors))
        scaled = {value.name for name in self.factors for value in sites[name].scaled}
        if scaled:
            graph.attrs[_ATTRIBUTE] = tuple(sorted(scaled | divided_values(graph)))
        graph.prune()
        return graph


def _divide(graph: Graph, node: Node, factors: np.ndarray) -> None:
    weights = node.input(1)
    if node.op.name == "layer_norm":
        shape: tuple[int, ...] = (-1,)
    else:
        shape = tuple(-1 if axis == weight_axis(node) else 1 for axis in range(weights.type.rank))
    _replace(graph, node, 1, weights.array / factors.reshape(shape))
    bias = node.optional(2)
    if bias is not None:
        _replace(graph, node, 2, np.broadcast_to(bias.array.reshape(-1), factors.shape) / factors)


def multiplied(node: Node, factors: np.ndarray) -> np.ndarray:
    """float64 weights of a product whose input channels were divided by factors [channels]."""
    weights = node.input(1).array.astype(np.float64)
    if node.op.name == "conv2d":
        # Output channel o of group g meets the input channels of g.
        groups = node.call.int("groups")
        met = factors.reshape(groups, 1, -1).repeat(weights.shape[0] // groups, axis=1)
        return np.asarray(weights * met.reshape(weights.shape[0], weights.shape[1], 1, 1))
    if node.op.name == "conv_transpose2d":
        return np.asarray(weights * factors.reshape(-1, 1, 1, 1))
    return np.asarray(weights * (factors if node.attrs["trans_b"] else factors[:, None]))


def _replace(graph: Graph, node: Node, index: int, array: np.ndarray) -> None:
    graph.set_input(node, index, graph.constant(array.astype(np.float32), plain_name(node.input(index))))
