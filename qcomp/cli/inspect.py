"""`qcomp inspect`: what an artifact, a model or a .qir text holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcomp.cli.arguments import Json, Level

if TYPE_CHECKING:
    from qcomp.runtime.artifact import TensorInfo

AnyFile = Annotated[
    Path,
    typer.Argument(metavar="ARTIFACT|MODEL", help="An artifact, an .onnx model or a .qir text.", show_default=False),
]


def inspect(file: AnyFile, level: Level = None, json: Json = False) -> None:
    """Show what an artifact or a model holds."""
    from qcomp.cli.files import check_input
    from qcomp.cli.output import print_json
    from qcomp.errors import QcompError

    check_input(file)
    library = file.suffix != ".qir" and _is_library(file)
    if level is not None and not library:
        raise QcompError("only artifacts have levels", where=str(file), fix="leave --level out")
    if library:
        facts, show = _artifact_facts(file, level), _show_artifact
    elif file.suffix == ".qir":
        facts, show = _text_facts(file), _show_model
    else:
        facts, show = _model_facts(file), _show_model
    if json:
        print_json(facts)
    else:
        show(facts)


def _is_library(path: Path) -> bool:
    from qcomp.errors import QcompError

    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x7fELF" or path.suffix in (".so", ".qart")
    except OSError as error:
        raise QcompError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _artifact_facts(path: Path, level: str | None) -> dict[str, Any]:
    from qcomp.runtime.artifact import read_trailer
    from qcomp.runtime.features import cpu_features, machine
    from qcomp.runtime.loader import best_level

    whole = read_trailer(path)
    info = whole.at(level or best_level(whole))
    return {
        "kind": "artifact",
        "path": str(path),
        "bytes": path.stat().st_size,
        "model": info.model,
        "qcomp": info.metadata.get("qcomp"),
        "format": info.format,
        "checksum": info.checksum,
        "hash": info.metadata.get("hash"),
        "target": whole.target,
        "machine": info.machine,
        "level": info.target if whole.levels else None,
        "levels": [
            {"name": held.name, "isa": list(held.isa), "arena_bytes": held.arena_bytes,
             "runs_here": whole.machine == machine() and cpu_features().issuperset(held.isa)}
            for held in whole.levels
        ],
        "isa": list(info.isa),
        "inputs": [_tensor(t) for t in info.inputs],
        "outputs": [_tensor(t) for t in info.outputs],
        "arena_bytes": info.arena_bytes,
        "arena_lower_bound": info.metadata.get("arena_lower_bound"),
        "weights_bytes": info.weights_bytes,
        "copied_bytes": info.metadata.get("copied_bytes"),
        "macs": sum(s.macs for s in info.steps),
        "steps": [
            {"name": s.name, "op": s.op, "kernel": s.kernel, "precision": s.precision, "shape": list(s.shape),
             "macs": s.macs, "bytes_moved": s.bytes_moved}
            for s in info.steps
        ],
        "islands": list(info.metadata.get("islands", ())),
    }  # fmt: skip


def _tensor(info: TensorInfo) -> dict[str, Any]:
    quant = {"scale": list(info.scale), "zero_point": list(info.zero_point)} if info.scale else None
    return {"name": info.name, "dtype": str(info.dtype), "shape": list(info.shape), "quantization": quant}


def _show_artifact(facts: dict[str, Any]) -> None:
    from qcomp.cli.output import bytes_text, count_text, plural, print_table

    bound = facts["arena_lower_bound"]
    lower = f" (at least {bytes_text(bound)} with any order of memory)" if bound is not None else ""
    print(f"{facts['path']}: model {facts['model']!r}, compiled by qcomp {facts['qcomp']} for {facts['target']}")
    if facts["level"] is not None:
        held = [level["name"] + ("" if level["runs_here"] else " (not on this CPU)") for level in facts["levels"]]
        print(f"levels   {', '.join(held)}")
        print(f"shown    {facts['level']}")
    print(f"needs    {facts['machine']} {' '.join(facts['isa'])}")
    print(f"arena    {bytes_text(facts['arena_bytes'])}{lower}")
    print(f"weights  {bytes_text(facts['weights_bytes'])}")
    print(f"file     {bytes_text(facts['bytes'])}")
    print(f"work     {plural(len(facts['steps']), 'step')}, {count_text(facts['macs'])} multiply-accumulates")
    if facts["copied_bytes"] is not None:
        print(f"copies   {bytes_text(facts['copied_bytes'])} moved by steps that do nothing else, the edges aside\n")
    for kind in ("inputs", "outputs"):
        rows = [(t["name"], t["dtype"], t["shape"], _quantization(t["quantization"])) for t in facts[kind]]
        print_table("", (kind, "dtype", "shape", "quantization"), rows)
    print_table(
        "",
        ("step", "op", "kernel", "precision", "shape", "MACs", "bytes moved"),
        [
            (s["name"], s["op"], s["kernel"], s["precision"], s["shape"], s["macs"], s["bytes_moved"])
            for s in facts["steps"]
        ],
    )
    print_table(
        "",
        ("float island", "op", "reason", "advice"),
        [(i.get("node", ""), i.get("op", ""), i.get("reason", ""), i.get("advice", "")) for i in facts["islands"]],
    )


def _quantization(quant: dict[str, Any] | None) -> str:
    if quant is None:
        return "-"
    if len(quant["scale"]) == 1:
        return f"scale {quant['scale'][0]:.6g}, zero point {quant['zero_point'][0]}"
    return f"{len(quant['scale'])} scales"


def _model_facts(path: Path) -> dict[str, Any]:
    import math
    from collections import Counter

    import onnx

    from qcomp.cli.files import model_bytes
    from qcomp.frontends.onnx.source import open_model

    model = open_model(path)
    graph = model.proto.graph
    # open_model converts old opsets; what is shown is what the file says.
    stored = onnx.load(path, load_external_data=False)
    ops = Counter(n.op_type if n.domain in ("", "ai.onnx") else f"{n.domain}.{n.op_type}" for n in stored.graph.node)
    constants = {c.name for c in graph.initializer}
    quantizing = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"}
    return {
        "kind": "model",
        "path": str(path),
        "bytes": model_bytes(path),
        "name": model.name,
        "producer": " ".join(filter(None, (stored.producer_name, stored.producer_version))),
        "opset": {o.domain or "ai.onnx": o.version for o in stored.opset_import},
        "inputs": [_onnx_tensor(i) for i in graph.input if i.name not in constants],
        "outputs": [_onnx_tensor(o) for o in graph.output],
        "parameters": sum(math.prod(c.dims) for c in graph.initializer),
        "quantized": any(op in quantizing or "QLinear" in op for op in ops),
        "nodes": sum(ops.values()),
        "ops": dict(sorted(ops.items(), key=lambda item: (-item[1], item[0]))),
    }


def _onnx_tensor(value: Any) -> dict[str, Any]:
    import onnx

    kind = value.type.tensor_type
    names = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
    names |= {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.DOUBLE: "float64"}
    shape = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim]
    return {"name": value.name, "dtype": names.get(kind.elem_type, "undefined"), "shape": shape}


def _text_facts(path: Path) -> dict[str, Any]:
    from collections import Counter

    from qcomp.cli.files import read_graph
    from qcomp.compiler import is_quantized
    from qcomp.reports.coverage import INTEGER_OPS

    graph = read_graph(path, {})
    ops = Counter(node.op.name for node in graph.nodes)
    return {
        "kind": "qir",
        "path": str(path),
        "bytes": path.stat().st_size,
        "name": graph.name,
        "inputs": [{"name": v.name, "dtype": v.dtype.value, "shape": list(v.shape)} for v in graph.inputs],
        "outputs": [{"name": v.name, "dtype": v.dtype.value, "shape": list(v.shape)} for v in graph.outputs],
        "parameters": sum(v.type.elements for v in graph.constants),
        "quantized": is_quantized(graph) or any(op in INTEGER_OPS for op in ops),
        "macs": sum(n.op.macs(n.call) for n in graph.nodes),
        "nodes": sum(ops.values()),
        "ops": dict(sorted(ops.items(), key=lambda item: (-item[1], item[0]))),
    }


def _show_model(facts: dict[str, Any]) -> None:
    from qcomp.cli.output import bytes_text, count_text, plural, print_table

    quantized = "quantized" if facts["quantized"] else "not quantized"
    print(f"{facts['path']}: {facts['name']!r}, {quantized}, {bytes_text(facts['bytes'])}")
    if "opset" in facts:
        opsets = ", ".join(f"{domain} {version}" for domain, version in facts["opset"].items())
        print(f"opset {opsets}; made by {facts['producer'] or 'an unnamed tool'}")
    print(f"{count_text(facts['parameters'])} parameters, {plural(facts['nodes'], 'node')}\n")
    for kind in ("inputs", "outputs"):
        print_table("", (kind, "dtype", "shape"), [(t["name"], t["dtype"], t["shape"]) for t in facts[kind]])
    print_table("", ("op", "count"), list(facts["ops"].items()))
