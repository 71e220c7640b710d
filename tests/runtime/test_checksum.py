from __future__ import annotations

import io
import struct
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcomp.runtime.checksum import Checksum, checksum

CHUNK = 128 * 256 * 8
MOD = 2**64


def by_definition(data: bytes) -> bytes:
    data += bytes(-len(data) % 8)
    words = struct.unpack(f"<{len(data) // 8}Q", data)
    low = sum(i * w for i, w in enumerate(words, 1)) % MOD
    high = sum(i * (w >> 32) for i, w in enumerate(words, 1)) % MOD
    return low.to_bytes(8, "little") + high.to_bytes(8, "little")


@given(st.binary(max_size=200))
def test_follows_its_definition(data: bytes) -> None:
    assert checksum(data) == by_definition(data)


@pytest.mark.parametrize("length", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 12345])
def test_follows_its_definition_across_chunks(length: int) -> None:
    data = np.random.default_rng(1).bytes(length)
    assert checksum(data) == by_definition(data)


def test_has_known_values() -> None:
    assert checksum(b"") == bytes(16)
    assert checksum(b"qcomp").hex() == "71636f6d70000000" + "7000000000000000"
    assert checksum(b"\1" + bytes(15) + b"\2").hex() == "0700000000000000" + "0000000000000000"


def test_does_not_depend_on_how_the_data_is_cut() -> None:
    data = np.random.default_rng(2).bytes(CHUNK + 5000)
    state = Checksum()
    for start, end in pairwise((0, 1, 7, 7, 1000, CHUNK - 3, len(data))):
        state.update(data[start:end])
    assert state.digest() == checksum(data)


def test_reads_no_more_of_a_stream_than_asked() -> None:
    stream = io.BytesIO(b"a" * 100 + b"b" * 100)
    state = Checksum()
    state.update_from(stream, 100)
    assert stream.tell() == 100
    assert state.digest() == checksum(b"a" * 100)


def test_notices_every_single_bit() -> None:
    data = np.random.default_rng(3).bytes(96)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert checksum(bytes(changed)) != checksum(data)


@pytest.mark.parametrize("distance", [1, 2, 256, 2**15, 2**16])
@pytest.mark.parametrize("difference", [1, 2**31, 2**32, 2**48, 2**63])
def test_notices_swapped_words_where_a_plain_weighted_sum_would_not(distance: int, difference: int) -> None:
    words = np.zeros(2**17, np.dtype("<u8"))
    words[5] = difference
    swapped = words.copy()
    swapped[[5, 5 + distance]] = swapped[[5 + distance, 5]]
    assert checksum(words.tobytes()) != checksum(swapped.tobytes())


def test_notices_a_dropped_word() -> None:
    words = np.random.default_rng(4).integers(0, 2**63, 50).astype(np.dtype("<u8"))
    for i in range(50):
        assert checksum(np.delete(words, i).tobytes()) != checksum(words.tobytes())


def test_is_fast_and_small() -> None:
    data = bytes(64 << 20)
    state = Checksum()
    best = min(_seconds(state, data) for _ in range(5))
    assert len(data) / best > 5e8  # far below what it does, far above a loop in Python
    assert sys.getsizeof(data) > 100 * (state._chunk.nbytes + state._high.nbytes)


def _seconds(state: Checksum, data: bytes) -> float:
    start = time.perf_counter()
    state.update(data)
    return time.perf_counter() - start
