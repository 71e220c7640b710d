"""Broken and unsupported models: name -> (writes the model into a folder, what the error has to name)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import onnx
from models import FLOAT, constant, model, node, tensor, weights
from onnx import TensorProto, external_data_helper, helper

Writer = Callable[[Path], Path]
MODELS: dict[str, tuple[Writer, str]] = {}


def _file(name: str, mention: str, content: Callable[[], bytes], suffix: str = ".onnx") -> None:
    def write(folder: Path) -> Path:
        path = folder / f"bad{suffix}"
        path.write_bytes(content())
        return path

    MODELS[name] = write, mention


def _proto(name: str, mention: str, make: Callable[[], onnx.ModelProto]) -> None:
    _file(name, mention, lambda: make().SerializeToString())


def _chain(*nodes: onnx.NodeProto, constants: tuple[onnx.TensorProto, ...] = (), **changes: object) -> onnx.ModelProto:
    """A model from x [1, 16] to y with the given nodes between them."""
    inputs = changes.pop("inputs", [tensor("x", [1, 16])])
    return model(nodes, inputs, [tensor("y", None)], constants, **changes)  # type: ignore[arg-type]


def _changed(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    proto = models.mlp()
    change(proto)
    return proto


def _external(folder: Path, location: str, present: bytes | None) -> Path:
    proto = models.mlp()
    held = proto.graph.initializer[0]
    external_data_helper.set_external_data(held, location, offset=0, length=24 * 16 * 4)
    held.ClearField("raw_data")
    held.data_location = TensorProto.EXTERNAL
    if present is not None:
        (folder / location).write_bytes(present)
    return models.save(proto, folder / "bad.onnx")


def _set_weight(value: float) -> onnx.ModelProto:
    proto = models.mlp()
    array = np.full((24, 16), 0.5, np.float32)
    array[3, 4] = value
    proto.graph.initializer[0].CopyFrom(constant("w0", array))
    return proto


_file("empty file", "empty", lambda: b"")
_file("text file", "ONNX", lambda: b"this is not a model\n" * 30)
_file("random bytes", "ONNX", lambda: np.random.default_rng(0).bytes(4000))
_file("truncated", "bad.onnx", lambda: models.mlp().SerializeToString()[:900])
_file("no graph", "graph", lambda: helper.make_model(onnx.GraphProto(), ir_version=8).SerializeToString()[:4])
MODELS["missing file"] = (lambda folder: folder / "nowhere.onnx"), "nowhere.onnx: no such file"
MODELS["folder"] = (lambda folder: folder), "folder"
MODELS["external data missing"] = (lambda folder: _external(folder, "lost.bin", None)), "lost.bin"
MODELS["external data cut off"] = (lambda folder: _external(folder, "short.bin", bytes(100))), "short.bin"
MODELS["external data elsewhere"] = (lambda folder: _external(folder, "../../outside.bin", None)), "outside.bin"

_proto("unsupported op", "NonZero", lambda: _chain(node("NonZero", ["x"], ["y"])))
_proto("op of an unknown domain", "Frobnicate", lambda: _chain(node("Frobnicate", ["x"], ["y"], domain="my.ops")))
_proto("several unsupported ops", "Det", lambda: _chain(node("NonZero", ["x"], ["n"]), node("Det", ["x"], ["y"])))
_proto("opset newer than known", "opset 999", lambda: _chain(node("Relu", ["x"], ["y"]), opset=999))
_proto("opset zero", "opset", lambda: _chain(node("Relu", ["x"], ["y"]), opset=0))
_proto("no opset", "opset", lambda: _changed(lambda m: m.ClearField("opset_import")))
_proto("IR version of the future", "IR version", lambda: _changed(lambda m: setattr(m, "ir_version", 99)))
_proto("open dimension", "--shape", lambda: _chain(node("Relu", ["x"], ["y"]), inputs=[tensor("x", ["N", "T", 4])]))
_proto(
    "cycle", "", lambda: _chain(node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"]))
)
_proto("undefined tensor", "'ghost'", lambda: _chain(node("Add", ["x", "ghost"], ["y"])))
_proto("output that nothing computes", "'y'", lambda: _chain(node("Relu", ["x"], ["h"])))
_proto("no outputs", "output", lambda: _changed(lambda m: m.graph.ClearField("output")))
_proto("two nodes with one result", "'y'", lambda: _chain(node("Relu", ["x"], ["y"]), node("Abs", ["x"], ["y"])))
_proto("two initializers of one name", "'w0'", lambda: _changed(lambda m: m.graph.initializer.append(weights("w0", 3))))
_proto("two inputs of one name", "'x'", lambda: _changed(lambda m: m.graph.input.append(tensor("x", [1, 16]))))
_proto("NaN in weights", "w0", lambda: _set_weight(float("nan")))
_proto("infinity in weights", "w0", lambda: _set_weight(float("inf")))
_proto("scale of zero", "scale 0.0", lambda: models.qdq(scale=0.0))
_proto("negative scale", "scale -0.1", lambda: models.qdq(weight_scale=-0.1))
_proto("NaN scale", "scale nan", lambda: models.qdq(scale=float("nan")))
_proto("zero point of another type", "zero", lambda: models.qdq(zero_type=np.float32))
_proto(
    "convolution of other channels", "c",
    lambda: _chain(node("Conv", ["x", "w"], ["y"]), constants=(weights("w", 4, 5, 3, 3),),
                   inputs=[tensor("x", [1, 3, 8, 8])]),
)  # fmt: skip
_proto(
    "matrices that do not fit", "y", lambda: _chain(node("MatMul", ["x", "w"], ["y"]), constants=(weights("w", 9, 4),))
)
_proto("impossible reshape", "y", lambda: _chain(
    node("Reshape", ["x", "s"], ["y"]), constants=(constant("s", [3, 7], np.int64),)))  # fmt: skip
_proto(
    "shapes that do not broadcast", "y", lambda: _chain(node("Add", ["x", "w"], ["y"]), constants=(weights("w", 5),))
)
_proto(
    "text as input",
    "'x'",
    lambda: _chain(node("Identity", ["x"], ["y"]), inputs=[tensor("x", [1], TensorProto.STRING)]),
)
_proto("sequence as input", "'x'", lambda: _chain(
    node("Identity", ["x"], ["y"]), inputs=[helper.make_tensor_sequence_value_info("x", FLOAT, [1])]))  # fmt: skip
_proto("missing operand", "y", lambda: _chain(node("Conv", ["x"], ["y"])))
_proto("missing attribute", "Cast", lambda: _chain(node("Cast", ["x"], ["y"])))
_proto("shape known at run time only", "y", lambda: _chain(
    node("Cast", ["x"], ["s"], to=TensorProto.INT64), node("Expand", ["x", "s"], ["y"])))  # fmt: skip
_proto(
    "weights with too few bytes", "w0", lambda: _changed(lambda m: setattr(m.graph.initializer[0], "raw_data", b"1234"))
)
_proto("negative dimension", "x", lambda: _chain(node("Relu", ["x"], ["y"]), inputs=[tensor("x", [1, -4])]))

_file("qir that is no graph", "bad.qir", lambda: b"hello", ".qir")
_file("qir with an unknown op", "frobnicate", lambda: (
    b"graph @g {\n  input %x: f32[2]\n  %y: f32[2] = frobnicate(%x)\n  output %y\n}\n"), ".qir")  # fmt: skip
_file("qir with a wrong type", "y", lambda: (
    b"graph @g {\n  input %x: f32[2]\n  %y: f32[3] = relu(%x)\n  output %y\n}\n"), ".qir")  # fmt: skip
_file("qir with an undefined value", "ghost", lambda: (
    b"graph @g {\n  input %x: f32[2]\n  %y: f32[2] = relu(%ghost)\n  output %y\n}\n"), ".qir")  # fmt: skip
_file("qir of bytes", "bad.qir", lambda: b"\xff\xfe\x00\x01" * 10, ".qir")
