"""What the classifier of file types sees of a file."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.zoo import magika


def test_a_short_file_stands_at_both_ends() -> None:
    row = magika.features(b"  \nab c\n")
    assert row.shape == (2048,) and row.dtype == np.int32
    assert row[:6].tolist() == [*b"ab c\n", 256] and row[-8:].tolist() == [256, *b"  \nab c"]
    assert set(row[6:-8].tolist()) == {256}


def test_a_long_file_is_seen_at_its_ends() -> None:
    content = bytes(range(200)) * 100
    row = magika.features(content)
    assert row.tolist() == [*content[:1024], *content[-1024:]]


def test_white_space_in_the_first_block_alone_is_left_out() -> None:
    row = magika.features(b" " * 4090 + b"x" * 5000)
    assert row[:7].tolist() == [*b"xxxxxx", 256]


@pytest.mark.slow
def test_types_are_labels_of_the_model() -> None:
    assert {label for labels in magika.TYPES.values() for label in labels} <= set(magika.labels())
