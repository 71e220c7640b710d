"""From a file or a ModelProto to a ModelProto that the importer can walk: read, checked, converted, inlined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import defs, inliner, shape_inference, version_converter

from qcomp.errors import QcompError

# Older models are converted to this one.  The converters read every form of their ops from here on; what the version
# converter makes of Resize in opset 10, for one, does not mean the same.
OLDEST_OPSET = 7


@dataclass(frozen=True)
class Model:
    """A model ready to import; `folder` is where its external data lies, `name` what its graph will be called."""

    proto: onnx.ModelProto
    folder: Path | None
    name: str
    opsets: dict[str, int]


def open_model(source: Path | str | onnx.ModelProto, name: str | None = None) -> Model:
    """Reads a model, converts opsets below 7, and inlines its functions.

    Raises QcompError for a file that is missing, empty or no ONNX model, for an IR version or opset newer than the
    installed onnx package knows, and for an old opset that cannot be converted.
    """
    if isinstance(source, onnx.ModelProto):
        proto, folder, default = source, None, source.graph.name or "model"
    else:
        path = Path(source)
        proto, folder, default = _read(path), path.parent, path.stem
    where = f"model {default!r}"
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise QcompError("this is no ONNX model: it has no graph", where=where)
    if proto.ir_version > onnx.IR_VERSION:
        raise QcompError(
            f"IR version {proto.ir_version} is newer than {onnx.IR_VERSION}, the newest the installed onnx reads",
            where=where,
            fix="upgrade the onnx package, or export with an older IR version",
        )
    proto = _convert(proto, where)
    if proto.functions:
        proto = inliner.inline_local_functions(proto, convert_version=False)
    return Model(proto, folder, name or default, _opsets(proto))


def _opsets(proto: onnx.ModelProto) -> dict[str, int]:
    """Version by domain; ONNX's own domain is ""."""
    return {"" if o.domain == "ai.onnx" else o.domain: o.version for o in proto.opset_import}


def _read(path: Path) -> onnx.ModelProto:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise QcompError(f"cannot read the model: {error.strerror}", where=str(path)) from None
    if not data:
        raise QcompError("the file is empty", where=str(path), fix="export the model again")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise QcompError("this is no ONNX model", where=str(path), fix="give a .onnx file") from None
    if not all(isinstance(text, str) for text in _texts(proto.graph)):
        # protobuf hands out bytes where a string is no UTF-8
        raise QcompError("the file is damaged: a name is no text", where=str(path), fix="export the model again")
    return proto


def _texts(graph: onnx.GraphProto) -> Iterator[object]:
    """Every name in a graph."""
    for node in graph.node:
        yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name
            yield from _texts(attribute.g)
    yield from (t.name for t in graph.initializer)
    yield from (v.name for v in (*graph.input, *graph.output))


def _convert(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    version = _opsets(proto).get("")
    if version is None:
        if any(n.domain in ("", "ai.onnx") for n in proto.graph.node):
            raise QcompError("the model names no opset version", where=where, fix="export it again")
        return proto
    if version < 1:
        raise QcompError(f"opset {version} does not exist", where=where, fix="export the model again")
    if version > defs.onnx_opset_version():
        raise QcompError(
            f"opset {version} is newer than {defs.onnx_opset_version()}, the newest the installed onnx knows",
            where=where,
            fix="upgrade the onnx package, or export with an older opset",
        )
    if version >= OLDEST_OPSET:
        return proto
    try:
        return version_converter.convert_version(proto, OLDEST_OPSET)
    except (version_converter.ConvertError, shape_inference.InferenceError, RuntimeError, ValueError) as error:
        reason = str(error).split("\n")[0].split("failed: ")[-1]  # without the place in onnx's source
        raise QcompError(
            f"opset {version} is too old and cannot be converted to {OLDEST_OPSET}: {reason}",
            where=where,
            fix=f"export the model with opset {OLDEST_OPSET} or newer",
        ) from None
