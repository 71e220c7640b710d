"""qcomp: an ahead-of-time compiler from trained neural networks to small, dependency-free int8 programs.

    artifact = qcomp.compile("model.onnx", target="native", calibration=samples)
    with qcomp.load("model.so", threads=2) as model:
        outputs = model.run({"input": x})

Importing qcomp is cheap: `load` brings in the loader and numpy on first use, `compile` the compiler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcomp.errors import QcompError

if TYPE_CHECKING:
    from qcomp.analysis import analyze
    from qcomp.compiler import Options, compile
    from qcomp.quantize.goals import Goal
    from qcomp.quantize.judging import Judging
    from qcomp.runtime.loader import load
    from qcomp.tuning import tune

__version__ = "0.1.0"
__all__ = ["Goal", "Judging", "Options", "QcompError", "__version__", "analyze", "compile", "load", "tune"]

_LAZY = {
    "Goal": "qcomp.quantize.goals",
    "Judging": "qcomp.quantize.judging",
    "Options": "qcomp.compiler",
    "analyze": "qcomp.analysis",
    "compile": "qcomp.compiler",
    "load": "qcomp.runtime.loader",
    "tune": "qcomp.tuning",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
