"""The checksum that guards an artifact against damage (not against malice).

With the bytes zero-padded to a multiple of 8 and read as little-endian 64-bit words w[1..n], and hi(w) = w >> 32, it
is the pair of little-endian 64-bit integers

    ( sum i * w[i]  mod 2^64,   sum i * hi(w[i])  mod 2^64 )

from which the sums of i * lo(w[i]) and of i * hi(w[i]) follow. One changed word changes one of these two by i * d, two
swapped words by (i - j) * d, with 0 < |d| < 2^32; both are nonzero modulo 2^64 while n < 2^32 (below 32 GiB), so
either is always noticed. What it does not see is zero bytes added at the end: the artifact's footer holds the lengths.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

# Chunks are small enough to stay in the second-level cache between the four sums that read them.
_ROWS, _COLUMNS = 128, 256
_CHUNK_BYTES = _ROWS * _COLUMNS * 8
_ROW_INDEX = np.arange(_ROWS, dtype=np.uint64)
_COLUMN_INDEX = np.arange(_COLUMNS, dtype=np.uint64)
_WORD = np.dtype("<u8")
_MODULUS = 1 << 64


class Checksum:
    """The checksum of a stream, fed piece by piece; it holds one chunk of it in memory."""

    def __init__(self) -> None:
        self._chunk = np.zeros(_CHUNK_BYTES, np.uint8)
        self._filled = 0
        self._high = np.empty((_ROWS, _COLUMNS), np.uint64)
        self._words_before = 0
        self._sum = 0
        self._high_sum = 0

    def update(self, data: bytes) -> None:
        """Adds `data`, of any length."""
        self.update_from(io.BytesIO(data), len(data))

    def update_from(self, source: BinaryIO | io.FileIO, length: int) -> None:
        """Adds the next `length` bytes of `source`, or as many as it has."""
        window = self._chunk.data
        while length > 0:
            got = source.readinto(window[self._filled : self._filled + length])  # type: ignore[union-attr]
            if not got:
                break
            length -= got
            self._filled += got
            if self._filled == _CHUNK_BYTES:
                self._absorb()

    def digest(self) -> bytes:
        """The 16 bytes of everything added. Ends the stream: add nothing afterwards."""
        if self._filled:
            self._chunk[self._filled :] = 0
            self._absorb()
        return struct.pack("<QQ", self._sum, self._high_sum)

    def _absorb(self) -> None:
        words = self._chunk.view(_WORD).reshape(_ROWS, _COLUMNS)
        np.right_shift(words, np.uint64(32), out=self._high)
        self._sum = (self._sum + self._weighted(words)) % _MODULUS
        self._high_sum = (self._high_sum + self._weighted(self._high)) % _MODULUS
        self._words_before += _ROWS * _COLUMNS
        self._filled = 0

    def _weighted(self, words: NDArray[np.uint64]) -> int:
        """sum i * w[i] over one chunk. With i = before + 1 + row * COLUMNS + column the sum splits into sums over rows
        and over columns, which numpy takes at memory speed and without a temporary."""
        rows = np.add.reduce(words, axis=1, dtype=np.uint64)
        columns = np.add.reduce(words, axis=0, dtype=np.uint64)
        total = int(np.add.reduce(rows))
        by_row = int(np.dot(rows, _ROW_INDEX))
        by_column = int(np.dot(columns, _COLUMN_INDEX))
        return (self._words_before + 1) * total + _COLUMNS * by_row + by_column


def checksum(data: bytes) -> bytes:
    """The 16-byte checksum of `data`."""
    state = Checksum()
    state.update(data)
    return state.digest()
