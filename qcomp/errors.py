"""The one exception that a user's mistake raises: bad models, data, arguments or targets."""

from __future__ import annotations


class QcompError(Exception):
    """A failure that the user can act on.

    The message is one line: what went wrong, where, and what to do about it.  The command line prints it on
    standard error and exits with status 2; anything else that escapes is a defect of qcomp.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        parts = [f"{where}: {what}" if where else what]
        if fix:
            parts.append(fix)
        super().__init__(" ".join("; ".join(parts).split()))
