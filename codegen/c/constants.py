"""The weights blob: every run-time constant once, 64-byte aligned."""

from __future__ import annotations

import hashlib

import numpy as np

ALIGN = 64


class Blob:
    """Constants by content; `add` returns the byte offset of an equal one."""

    def __init__(self) -> None:
        self._offsets: dict[bytes, int] = {}
        self._parts: list[bytes] = []
        self.bytes = 0

    def add(self, array: np.ndarray) -> int:
        little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        raw = little.tobytes()
        key = hashlib.sha256(raw).digest() + len(raw).to_bytes(8, "little")
        if key not in self._offsets:
            self._offsets[key] = self.bytes
            padded = raw + bytes(-len(raw) % ALIGN)
            self._parts.append(padded)
            self.bytes += len(padded)
        return self._offsets[key]

    def content(self) -> bytes:
        """All constants and one line of zeros, so that a vector load at the end stays inside."""
        return b"".join([*self._parts, bytes(ALIGN)])
