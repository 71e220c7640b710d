"""The table of converters: (domain, ONNX op type) -> the function that writes the op in our terms."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qcomp.ir.graph import Value

if TYPE_CHECKING:
    from qcomp.frontends.onnx.node import OnnxNode

# A converter returns one value for each output of the node (trailing unused outputs may be left out).
Converter = Callable[["OnnxNode"], Sequence[Value] | Value]

MICROSOFT = "com.microsoft"

_CONVERTERS: dict[tuple[str, str], Converter] = {}


def onnx_op(*names: str, domain: str = "") -> Callable[[Converter], Converter]:
    """Decorator: the function converts the ops of these names in a domain."""

    def enter(converter: Converter) -> Converter:
        for name in names:
            if (domain, name) in _CONVERTERS:
                raise ValueError(f"two converters for {name}")
            _CONVERTERS[domain, name] = converter
        return converter

    return enter


def converter_for(domain: str, op_type: str) -> Converter | None:
    _load()
    return _CONVERTERS.get((domain, op_type))


def supported_ops() -> tuple[tuple[str, str], ...]:
    """(domain, op type) of every op that has a converter, sorted."""
    _load()
    return tuple(sorted(_CONVERTERS))


def _load() -> None:
    import qcomp.frontends.onnx.ops as ops

    for name in sorted(m.name for m in pkgutil.iter_modules(ops.__path__)):
        importlib.import_module(f"{ops.__name__}.{name}")
