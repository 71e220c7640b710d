"""What onnxruntime raises, and the one line that users get to see of it."""

from __future__ import annotations

from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

from qcomp.errors import QcompError


def onnxruntime_failures() -> tuple[type[Exception], ...]:
    """Everything that loading or running a model may raise: onnxruntime's own have no common class below Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as states  # slow to import, and only needed here

    own = (kind for kind in vars(states).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, RuntimeError, ValueError, EncodeError)


def refused(what: str, error: Exception, where: str = "", fix: str = "check the model") -> QcompError:
    """The error for the user: onnxruntime cannot load or run `what`."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return QcompError(f"onnxruntime cannot {what} ({line})", where=where, fix=fix)
