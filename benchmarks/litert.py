"""LiteRT's files of a case of the zoo, made once and kept: the float network, and int8 by Google's own quantizer,
statically or, of transformers, dynamically."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from importlib.metadata import version
from pathlib import Path

import numpy as np
from prepare import CALIBRATION_SAMPLES, is_transformer

from qcomp.zoo import cache
from qcomp.zoo.case import Case

#: Part of every file name; raise it when the files that are made here change.
VERSION = 1


def litert_files(case: Case) -> dict[str, Path]:
    """int8 (activations per tensor, weights per channel, its inputs and outputs float32) and fp32, by form.

    Of a transformer the int8 form is that of dynamic ranges: the weights of products are int8, per channel, and their
    activations are quantized at run time, row by row.  Raises QcompError for a network that neither writer has a
    form for.
    """
    if is_transformer(case):
        from tflite_transformer import transformer_tflite

        made = transformer_tflite(case.onnx_path, case.shapes)
        plain = _kept(case, "fp32", lambda path: _write(path, made))
        return {"int8 dynamic": _kept(case, "dynamic", lambda path: _quantize_weights(plain, path)), "fp32": plain}
    from tflite import float_tflite

    plain = _kept(case, "fp32", lambda path: _write(path, float_tflite(case.onnx_path, path.parent)))
    return {"int8": _kept(case, "int8", lambda path: _quantize(case, plain, path)), "fp32": plain}


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _quantize_weights(plain: Path, path: Path) -> None:
    from ai_edge_quantizer import quantizer, recipe

    work = quantizer.Quantizer(str(plain), recipe.dynamic_wi8_afp32())
    with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()):
        work.quantize(enable_progress_report=False).export_model(path)


def _kept(case: Case, form: str, build: Callable[[Path], None]) -> Path:
    digest = hashlib.blake2b(case.onnx_path.read_bytes(), digest_size=8)
    for array in case.calibration_samples(CALIBRATION_SAMPLES).values():
        digest.update(np.ascontiguousarray(array).data)
    stem = f"{case.name}-{form}-v{VERSION}-quantizer{version('ai-edge-quantizer')}-{digest.hexdigest()}"
    return cache.cached(f"tflite/{stem}.tflite", build)


def _quantize(case: Case, plain: Path, path: Path) -> None:
    """Ranges are the least and greatest values, as for the other engines; the quantizer's own running mean clips."""
    from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe, recipe_manager
    from ai_edge_quantizer.utils.qsv_utils import min_max_update
    from tflite import channels_last
    from tflite_file import SIGNATURE

    feeds = case.calibration_feeds(CALIBRATION_SAMPLES)
    cache.progress(f"quantizing {case.name} with ai-edge-quantizer on {len(feeds)} samples")
    rules = recipe_manager.RecipeManager()
    rules.load_quantization_recipe(recipe.static_wi8_ai8())
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):  # float32, as the other engines'
        rules.add_quantization_config(".*", end, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
    # It warns of the memory that keeping all tensors takes, and draws bars.
    with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()):
        ranges = calibrator.Calibrator(plain.read_bytes(), os.cpu_count() or 1, qsv_update_func=min_max_update)
        rows = [{name: channels_last(array) for name, array in feed.items()} for feed in feeds]
        ranges.calibrate({SIGNATURE: rows}, rules)
        work = quantizer.Quantizer(str(plain), rules.get_quantization_recipe())
        work.quantize(ranges.get_model_qsvs(), enable_progress_report=False).export_model(path)
