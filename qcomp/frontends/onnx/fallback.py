"""Ops outside the table of converters: evaluated when constant, else expanded into the function that defines them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper
from onnx.reference import ReferenceEvaluator

from qcomp.frontends.onnx.node import OnnxNode

_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def _schema(node: OnnxNode) -> Any:  # an OpSchema, whose stub lacks the functions
    if node.proto.domain not in ("", "ai.onnx"):
        return None
    try:
        return defs.get_schema(node.proto.op_type, node.opset, "")
    except defs.SchemaError:
        return None


def evaluate(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], node: OnnxNode) -> list[Any]:
    """The outputs of a model by onnx's reference evaluator; QcompError, naming the node, for what it rejects."""
    try:
        return list(ReferenceEvaluator(model).run(None, dict(feeds)))
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise node.fail(f"its inputs and attributes do not fit together ({reason})") from error


def evaluate_constants(node: OnnxNode) -> list[np.ndarray] | None:
    """The outputs of a node whose inputs are all constants, by onnx's reference evaluator; else None."""
    values = node.inputs
    present = [(name, v) for name, v in zip(node.proto.input, values, strict=True) if v is not None]
    if not present or any(v.data is None for _, v in present) or node.proto.op_type in _RANDOM or _schema(node) is None:
        return None
    if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.proto.attribute):
        return None
    feeds = {name: v.array for name, v in present}
    names = [o for o in node.proto.output if o]
    model = helper.make_model(
        helper.make_graph(
            [node.proto],
            "constants",
            [
                helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                for k, a in feeds.items()
            ],
            [helper.make_empty_tensor_value_info(name) for name in names],
        ),
        opset_imports=[helper.make_opsetid("", node.opset)],
    )
    results = iter(evaluate(model, feeds, node))
    arrays = [np.asarray(next(results)) if o else np.zeros(0, np.float32) for o in node.proto.output]
    return [a.astype(np.float32) if a.dtype == np.float16 else a for a in arrays]


def function_body(node: OnnxNode) -> onnx.FunctionProto | None:
    """The ONNX definition of an op in terms of other ops, attributes filled in; None if it has none."""
    schema = _schema(node)
    if schema is None:
        return None
    body = onnx.FunctionProto()
    if schema.has_context_dependent_function:
        version = _newest(schema.context_dependent_function_opset_versions, node.opset)
        types = [_type_of(node, i) for i in range(len(node.proto.input))]
        body.ParseFromString(
            schema.get_context_dependent_function_with_opset_version(version, node.proto.SerializeToString(), types)
        )
    elif schema.has_function:
        version = _newest(schema.function_opset_versions, node.opset)
        body.ParseFromString(schema.get_function_with_opset_version(version))
    else:
        return None
    defaults = {a.name: a for a in body.attribute_proto}
    defaults |= {k: a.default_value for k, a in schema.attributes.items() if a.default_value.name}
    _substitute(body.node, {**defaults, **node.attributes})
    return body


def _newest(versions: list[int], opset: int) -> int:
    return max((v for v in versions if v <= opset), default=min(versions))


def _type_of(node: OnnxNode, index: int) -> bytes:
    value = node.optional(index)
    if value is None:
        return b""
    element = helper.np_dtype_to_tensor_dtype(value.dtype.numpy)
    return bytes(helper.make_tensor_type_proto(element, value.shape).SerializeToString())


def _substitute(nodes: object, values: dict[str, onnx.AttributeProto]) -> None:
    """References to the function's attributes become their values; those without a value go."""
    for inner in nodes:  # type: ignore[attr-defined]
        kept = []
        for attribute in inner.attribute:
            if attribute.ref_attr_name:
                if attribute.ref_attr_name not in values:
                    continue
                filled = onnx.AttributeProto()
                filled.CopyFrom(values[attribute.ref_attr_name])
                filled.name = attribute.name
                kept.append(filled)
            else:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    _substitute(attribute.g.node, values)
                kept.append(attribute)
        copies = [onnx.AttributeProto.FromString(a.SerializeToString()) for a in kept]
        del inner.attribute[:]
        inner.attribute.extend(copies)
