"""Packages that only some cases need."""

from __future__ import annotations

import importlib
from typing import Any

from qcomp.errors import QcompError

# The CPU build is enough everywhere; the zoo trains for a minute at most.
REQUIREMENTS = {"torch": "torch==2.13.0"}


def require(module: str, case: str) -> Any:
    """The imported module; raises QcompError that names the case and what to install when it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise QcompError(
            f"the case {case} needs {module} to make its model",
            where="qcomp.zoo",
            fix=f"install {REQUIREMENTS.get(module, module)} (a CPU build is enough)",
        ) from error
