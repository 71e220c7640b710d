"""The other engines: each makes functions that run one model of the zoo once, by the form of the model."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from prepare import CALIBRATION_SAMPLES, is_transformer

import qcomp.zoo
from qcomp.cli.peers import peer
from qcomp.errors import QcompError
from qcomp.zoo import cache
from qcomp.zoo.case import Case

Feed = Mapping[str, np.ndarray]
Run = Callable[[], object]
Engine = Callable[[Case, Feed, int], Iterator[tuple[str, Run]]]


def installed() -> list[str]:
    """Names of the engines that can be imported here."""
    return [name for name, (packages, _) in ENGINES.items() if all(map(importlib.util.find_spec, packages))]


def sides(engines: list[str], case: Case, feed: Feed, threads: int) -> dict[str, Run]:
    """What to time, as "engine form"; every form of every engine, for one model."""
    made = ((engine, ENGINES[engine][1](case, feed, threads)) for engine in engines)
    return {f"{engine} {form}": run for engine, forms in made for form, run in forms}


def onnxruntime_files(case: Case) -> dict[str, Path]:
    """onnxruntime's models by form: its own quantizer's (per channel), or the file's own, and the float model."""
    if case.name.endswith("_qat"):
        return {"int8 own": case.onnx_path}
    forms = ("qdq", "qoperator", *(("dynamic",) if is_transformer(case) else ()))
    return {**{f"int8 {form}": path for form, path in _quantized(case, forms)}, "fp32": case.onnx_path}


def _quantized(case: Case, forms: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """The forms that onnxruntime's quantizer can make of the case's model."""
    for form in forms:
        try:
            yield form, qcomp.zoo.quantized_by_onnxruntime(case, form)
        except QcompError as error:
            cache.progress(f"int8 {form} is left out of {case.name}: {error}")


def _onnxruntime(case: Case, feed: Feed, threads: int) -> Iterator[tuple[str, Run]]:
    for form, path in onnxruntime_files(case).items():
        yield form, peer("onnxruntime", path, threads, feed)


def _openvino(case: Case, feed: Feed, threads: int) -> Iterator[tuple[str, Run]]:
    """nncf's int8 form (or the file's own), the QDQ file of onnxruntime's quantizer, and the float model twice."""
    import openvino

    core = openvino.Core()

    def read(path: Path) -> Any:
        model = core.read_model(str(path))
        model.reshape({name: list(array.shape) for name, array in feed.items()})
        return model

    models: dict[str, tuple[Any, dict[str, str]]] = {}
    if case.name.endswith("_qat"):
        models["int8 own"] = read(case.onnx_path), {}
    else:
        models["int8 nncf"] = _nncf(read(case.onnx_path), case), {}
        for form, path in _quantized(case, ("qdq",)):
            models[f"int8 {form}"] = read(path), {}
        models["bf16"] = read(case.onnx_path), {"INFERENCE_PRECISION_HINT": "bf16"}
        models["fp32"] = read(case.onnx_path), {"INFERENCE_PRECISION_HINT": "f32"}
    for form, (model, hints) in models.items():
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", **hints}
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        for name, array in feed.items():
            request.set_tensor(name, openvino.Tensor(array))
        yield form, request.infer


def _litert(case: Case, feed: Feed, threads: int) -> Iterator[tuple[str, Run]]:
    """With its default delegate, XNNPACK; nothing for networks that its converter here has no form for."""
    from litert import litert_files

    try:
        files = litert_files(case)
    except QcompError as error:
        cache.progress(f"{case.name} is left out of LiteRT: {error}")
        return
    for form, path in files.items():
        yield form, peer("litert", path, threads, feed)


def _nncf(model: Any, case: Case) -> Any:
    import nncf

    nncf.set_log_level(logging.ERROR)
    feeds = case.calibration_feeds(CALIBRATION_SAMPLES)
    return nncf.quantize(model, nncf.Dataset(feeds), subset_size=len(feeds))


#: name -> (packages that it needs, what makes its sides)
ENGINES: Mapping[str, tuple[tuple[str, ...], Engine]] = {
    "onnxruntime": (("onnxruntime",), _onnxruntime),
    "openvino": (("openvino", "nncf"), _openvino),
    "litert": (("ai_edge_litert", "ai_edge_quantizer"), _litert),
}
