"""The same case quantized by onnxruntime: a peer to beat, and real QDQ and QOperator models to import."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx

from qcomp.errors import QcompError
from qcomp.zoo import cache
from qcomp.zoo.case import Array, Case

FORMATS = ("qdq", "qoperator", "dynamic")
# The first opset whose QuantizeLinear has an axis is 13; 17 is what the other models of the zoo have.
OPSET = 17
# Part of every file name; raise it when this module changes what it makes.
VERSION = 1


def quantized_by_onnxruntime(case: Case, format: str = "qdq", per_channel: bool = True) -> Path:
    """The case's model after onnxruntime's ``quantize_static``, MinMax on its calibration samples; cached.

    Activations are uint8, weights int8; ``format`` is "qdq" or "qoperator", or "dynamic" for ``quantize_dynamic``,
    which needs no samples.  Input shapes are bound as the
    case binds them.  Raises QcompError for another format, for a model that is quantized already (it has
    QuantizeLinear nodes) and when onnxruntime's quantizer fails.
    """
    import onnxruntime

    if format not in FORMATS:
        raise QcompError(f"no format {format!r}", where="qcomp.zoo", fix=f"one of: {', '.join(FORMATS)}")
    digest = hashlib.blake2b(case.onnx_path.read_bytes(), digest_size=8)
    digest.update(repr(sorted(case.shapes.items())).encode())
    for name in case.shapes:
        digest.update(np.ascontiguousarray(case.calibration_inputs[name]).data)
    grain = "per-channel" if per_channel else "per-tensor"
    stem = f"{case.name}-{format}-{grain}-v{VERSION}-ort{onnxruntime.__version__}"
    return cache.cached(
        f"quantized/{stem}-{digest.hexdigest()}.onnx",
        lambda path: _quantize(case, format, per_channel, path),
    )


def _quantize(case: Case, format: str, per_channel: bool, path: Path) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.load(str(case.onnx_path))
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise QcompError(
            f"{case.name} is quantized already", where="qcomp.zoo", fix="use the model of the case as it is"
        )
    feeds = [] if format == "dynamic" else case.calibration_feeds()
    cache.progress(f"quantizing {case.name} with onnxruntime on {len(feeds)} samples")
    # onnxruntime's tools write further files beside their output; all stay in a folder that is removed.
    with cache.scratch() as folder, _quiet_logging():
        bound, prepared = folder / "bound.onnx", folder / "prepared.onnx"
        try:
            onnx.save(_bound(model, case.shapes), bound)
            quant_pre_process(str(bound), str(prepared), skip_symbolic_shape=True)
            if format == "dynamic":
                quantize_dynamic(str(prepared), str(path), per_channel=per_channel, weight_type=QuantType.QInt8)
                return
            quantize_static(
                str(prepared),
                str(path),
                _reader(feeds),
                quant_format=QuantFormat.QDQ if format == "qdq" else QuantFormat.QOperator,
                per_channel=per_channel,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        # The quantizer raises whatever its many parts raise; to the user it is one failure.
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError, OSError) as error:
            raise QcompError(
                f"onnxruntime could not quantize {case.name}: {error}",
                where="qcomp.zoo",
                fix="try the other format or per_channel=False",
            ) from error


def _bound(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    """The model in OPSET or later, with static input shapes and outputs left to shape inference."""
    from onnxruntime.tools.onnx_model_utils import fix_output_shapes, make_input_shape_fixed

    if next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")) < OPSET:
        model = onnx.version_converter.convert_version(model, OPSET)
    for name, shape in shapes.items():
        make_input_shape_fixed(model.graph, name, shape)
    fix_output_shapes(model)
    return model


def _reader(feeds: list[dict[str, Array]]) -> object:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Hands out one sample at a time, and None at the end."""

        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> dict[str, Array] | None:
            return next(self._feeds, None)

    return Reader()


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """onnxruntime's quantizer logs a warning a node through the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
