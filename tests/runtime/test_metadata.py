"""Metadata as text: tables by columns, and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcomp.runtime.metadata import metadata_text, parse_metadata

cells = st.one_of(st.integers(), st.sampled_from(["qconv2d", "vnni gemm 8x48"]), st.text(), st.lists(st.integers()))
rows = st.lists(st.fixed_dictionaries({"name": cells, "op": st.sampled_from(["qgemm", "qadd"]), "macs": cells}))


@given(rows, rows)
def test_tables_come_back_as_they_were(steps, islands):
    metadata = {"model": "m", "steps": steps, "islands": islands, "inputs": [{"name": "x"}]}
    assert parse_metadata(metadata_text(metadata)) == metadata


def test_keys_and_repeated_strings_are_written_once():
    text = metadata_text({"steps": [{"op": "qconv2d", "macs": i} for i in range(100)]})
    assert text.count(b"qconv2d") == text.count(b"macs") == 1
    assert json.loads(text)["steps"]["op"] == {"values": ["qconv2d"], "index": [0] * 100}


def test_rows_with_different_keys_stay_rows():
    metadata = {"steps": [{"name": "a"}, {"op": "b"}]}
    assert json.loads(metadata_text(metadata)) == metadata


@pytest.mark.parametrize(
    "table",
    [
        {"name": ["a", "b"], "op": ["c"]},
        {"name": "ab"},
        {"name": {"values": ["a"]}},
        {"name": {"values": ["a"], "index": [1]}},
        {"name": {"values": ["a"], "index": 0}},
        {"name": {"values": 1, "index": [0]}},
    ],
)
def test_columns_that_do_not_fit_are_refused(table):
    with pytest.raises(ValueError, match="column|argument"):
        parse_metadata(json.dumps({"steps": table}).encode())


def test_what_is_not_an_object_is_left_to_the_reader():
    assert parse_metadata(b"[1]") == [1]
