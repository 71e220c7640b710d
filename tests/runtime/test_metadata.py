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


@given(rows, st.lists(rows, max_size=3), st.booleans())
def test_levels_come_back_as_they_were(steps, tables, alike):
    levels = [{"target": str(i), "arena_bytes": 64 * i, "steps": table} for i, table in enumerate(tables)]
    if alike:
        levels += [{"target": "same", "arena_bytes": 7, "steps": steps}]
    metadata = {"target": "t", "arena_bytes": 7, "steps": steps, "inputs": [], "levels": levels}
    assert parse_metadata(metadata_text(metadata)) == metadata


def test_levels_hold_their_differences():
    steps = [{"name": f"n{i}", "kernel": "a", "macs": i} for i in range(3)]
    other = [{**row, "kernel": "b"} for row in steps]
    shorter = other[:2]
    levels = [{"target": str(i), "isa": [], "steps": rows} for i, rows in enumerate((steps, other, shorter))]
    written = json.loads(metadata_text({"target": "t", "isa": [], "steps": steps, "levels": levels}))["levels"]
    assert written[0] == {"target": "0"}
    assert written[1] == {"target": "1", "steps": {"kernel": ["b", "b", "b"]}}
    assert written[2] == {"target": "2", "steps": {"name": ["n0", "n1"], "macs": [0, 1], "kernel": ["b", "b"]}}


@pytest.mark.parametrize("levels", [3, "ab", {"target": "a"}, [3], [["a"]]])
def test_levels_that_are_none_are_refused(levels):
    with pytest.raises(ValueError, match="levels are no list of objects"):
        parse_metadata(json.dumps({"levels": levels}).encode())


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
