"""The error for what ONNX allows and this compiler does not take."""

from __future__ import annotations

from qcomp.errors import QcompError


class Unsupported(QcompError):
    """An op, a form of one, or an element type that has no counterpart here.

    The importer collects those of nodes, and names all of them in one message.
    """
