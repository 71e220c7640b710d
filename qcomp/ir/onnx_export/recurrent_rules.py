"""Export rules of recurrent layers: LSTM and GRU, or a Scan over the steps where the state is rounded to int8.

A state whose grid is found at run time stays float, though its weights are int8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import helper

from qcomp.ir.graph import Node
from qcomp.ir.onnx_export.emitter import ELEMENT_TYPES, Emitter, Rule, out_names
from qcomp.ir.types import DType, Quantization

# From the states and a step of x to the states after it, the one that is y first.
_Step = Callable[[Emitter, Sequence[str], str], list[str]]


def _lstm(e: Emitter, node: Node) -> None:
    states = (e.name(node.optional(2)), e.name(node.optional(3)))
    if not node.call.float("state_scale"):
        _float_state(e, node, "LSTM", "", states)
        return
    product = _product(e, node)

    def step(e: Emitter, before: Sequence[str], x: str) -> list[str]:
        h, c = before
        i, o, f, g = _split(e, e.op("Add", [x, product(e, h, 0, 4)]), 4)
        kept = e.op("Mul", [e.op("Sigmoid", [f]), c])
        c = e.op("Add", [kept, e.op("Mul", [e.op("Sigmoid", [i]), e.op("Tanh", [g])])])
        return [e.op("Mul", [e.op("Sigmoid", [o]), e.op("Tanh", [c])]), c]

    _scan(e, node, states, step)


def _gru(e: Emitter, node: Node) -> None:
    width, hidden = node.input(1).shape
    linear = node.call.bool("linear_before_reset")
    added, states = node.optional(2), (e.name(node.optional(3)),)
    if not node.call.float("state_scale"):
        bias = ""
        if added is not None:
            before = e.tensor(np.zeros(width + 2 * hidden, np.float32), "before")
            bias = e.op("Unsqueeze", [e.op("Concat", [before, e.name(added)], axis=0), e.ints((0,), "first")])
        _float_state(e, node, "GRU", bias, states, linear_before_reset=int(linear))
        return
    product = _product(e, node)
    vector = e.name(added)
    one = e.float(1.0, "one")

    def step(e: Emitter, before: Sequence[str], x: str) -> list[str]:
        (h,) = before
        xz, xr, own = _split(e, x, 3)
        pz, pr = _split(e, product(e, h, 0, 2), 2)
        z, s = (e.op("Sigmoid", [e.op("Add", pair)]) for pair in ([xz, pz], [xr, pr]))
        if linear:
            part = product(e, h, 2, 3)
            part = e.op("Mul", [s, e.op("Add", [part, vector]) if vector else part])
        else:
            part = product(e, e.op("Mul", [s, h]), 2, 3)
        n = e.op("Tanh", [e.op("Add", [own, part])])
        fresh = e.op("Mul", [e.op("Sub", [one, z]), n])
        return [e.op("Add", [fresh, e.op("Mul", [z, h])])]

    _scan(e, node, states, step)


def _float_state(
    e: Emitter, node: Node, op_type: str, bias: str, states: tuple[str, ...], **attributes: int
) -> None:
    """The layer on one direction, with the identity as weights of its input."""
    first, second = e.ints((0,), "first"), e.ints((1,), "second")
    width, hidden = node.input(1).shape
    r = e.name(node.input(1))
    if node.optional(4) is not None:
        scale = e.op("Unsqueeze", [e.name(node.optional(4)), second])
        r = e.op("Mul", [e.op("Cast", [r], to=ELEMENT_TYPES[DType.F32]), scale])
    identity = e.tensor(np.eye(width, dtype=np.float32)[None], "identity")
    initial = [e.op("Unsqueeze", [s, first]) if s else "" for s in states]
    operands = [e.name(node.input(0)), identity, e.op("Unsqueeze", [r, first]), bias, "", *initial]
    inner = [e.fresh(f"{name}__directions") for name in out_names(node)]
    direction = "reverse" if node.call.bool("reverse") else "forward"
    e.op(op_type, operands, inner, hidden_size=hidden, direction=direction, **attributes)
    for index, (directions, name) in enumerate(zip(inner, out_names(node), strict=True)):
        e.op("Squeeze", [directions, first if index else second], name)


def _product(e: Emitter, node: Node) -> Callable[[Emitter, str, int, int], str]:
    """What computes, inside of a scan, a state on its grid times the weights of the gates start to stop."""
    hidden, grid = node.input(1).shape[1], node.call.float("state_scale")
    weights = e.op("Transpose", [e.op("Cast", [e.name(node.input(1))], to=ELEMENT_TYPES[DType.F32])], perm=(1, 0))
    scales = e.op("Mul", [e.name(node.optional(4)), e.float(grid, "state_scale")])

    def product(e: Emitter, h: str, start: int, stop: int) -> str:
        integers = e.op("Cast", [e.quantize(h, Quantization.per_tensor(grid), DType.I8)], to=ELEMENT_TYPES[DType.F32])
        ends = [e.ints((gate * hidden,), "end") for gate in (start, stop)]
        columns = e.op("Slice", [weights, *ends, e.ints((1,), "axis")])
        return e.op("Mul", [e.op("MatMul", [integers, columns]), e.op("Slice", [scales, *ends])])

    return product


def _split(e: Emitter, value: str, parts: int) -> list[str]:
    results = [e.fresh(f"{value}__part") for _ in range(parts)]
    e.op("Split", [value], results, axis=1, num_outputs=parts)
    return results


def _scan(e: Emitter, node: Node, states: Sequence[str], step: _Step) -> None:
    """The layer as a loop over its steps, whose states are 0 where they are not given."""
    kind, shape = ELEMENT_TYPES[DType.F32], node.outputs[1].shape
    initial = [state or e.tensor(np.zeros(shape, np.float32), "zeros") for state in states]
    before, x = [e.fresh(f"{name}__before") for name in initial], e.fresh(f"{node.outputs[0].name}__x")
    with e.body() as inner:
        after = step(inner, before, x)
        y = inner.op("Identity", [after[0]])
    body = helper.make_graph(
        inner.nodes,
        f"{node.name}/step",
        [helper.make_tensor_value_info(name, kind, shape) for name in before]
        + [helper.make_tensor_value_info(x, kind, node.input(0).shape[1:])],
        [helper.make_tensor_value_info(name, kind, shape) for name in (*after, y)],
    )
    results, backwards = out_names(node), int(node.call.bool("reverse"))
    e.op(
        "Scan", [*initial, e.name(node.input(0))], [*results[1:], results[0]], body=body, num_scan_inputs=1,
        scan_input_directions=[backwards], scan_output_directions=[backwards],
    )  # fmt: skip


RECURRENT_RULES: dict[str, Rule] = {"lstm": _lstm, "gru": _gru}
