"""The text form of an artifact's metadata: JSON in which tables are kept by columns.

A list of objects that have the same keys ("steps", "islands") becomes one object of lists; a list of strings in it
that repeat becomes {"values": [each once], "index": [which]}, where that is shorter:

    [{"op": "qgemm", "macs": 6}, {"op": "qgemm", "macs": 8}]
    {"macs": [6, 8], "op": {"index": [0, 0], "values": ["qgemm"]}}

A row of "levels" (the same model for several instruction sets) leaves out what is as in the object itself: members, and
columns of its tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

#: Members of the metadata that are tables.
_TABLES = ("steps", "islands")
#: What a row of "levels" has; where one is missing it is as in the object itself.
_LEVEL_MEMBERS = ("target", "isa", "arena_bytes", "arena_lower_bound", "steps")


def metadata_text(metadata: Mapping[str, Any]) -> bytes:
    """The metadata in UTF-8; the same object gives the same bytes."""
    whole = _by_columns(metadata)
    if "levels" in whole:
        whole["levels"] = [_difference(_by_columns(level), whole) for level in whole["levels"]]
    return _json(whole).encode()


def parse_metadata(text: bytes) -> Any:
    """What `metadata_text` was given; tables that are kept by rows are taken as they are.

    Raises ValueError for what is not JSON, or a table whose columns do not fit together."""
    whole = json.loads(text)
    if not isinstance(whole, dict):
        return whole
    rows = _by_rows(whole)
    if "levels" in whole:
        if not isinstance(whole["levels"], list) or not all(isinstance(level, dict) for level in whole["levels"]):
            raise ValueError("levels are no list of objects")
        rows["levels"] = [_by_rows(_completed(level, whole)) for level in whole["levels"]]
    return rows


def _by_columns(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _columns(value) if name in _TABLES else value for name, value in metadata.items()}


def _by_rows(whole: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _rows(value) if name in _TABLES else value for name, value in whole.items()}


def _difference(level: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """The level without what `_completed` brings back; it keeps its name."""
    own: dict[str, Any] = {}
    for name, value in level.items():
        base = whole.get(name)
        if name in _TABLES and isinstance(value, dict) and isinstance(base, dict) and value.keys() == base.keys():
            value = {key: column for key, column in value.items() if column != base[key]} or base
        elif name in _TABLES and isinstance(value, dict):
            value = _rows(value)  # a table of columns would be read as a difference
        if name == "target" or name not in whole or value != base:
            own[name] = value
    return own


def _completed(level: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """A level with what it shares with the whole: the members that levels have, and missing columns."""
    members = {name: whole[name] for name in _LEVEL_MEMBERS if name in whole}
    for name, value in level.items():
        base = whole.get(name)
        if name in _TABLES and isinstance(value, dict) and isinstance(base, dict):
            value = {**base, **value}
        members[name] = value
    return members


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _columns(rows: Sequence[Mapping[str, Any]]) -> Any:
    if not rows or any(row.keys() != rows[0].keys() for row in rows):
        return list(rows)
    return {key: _shorter([row[key] for row in rows]) for key in rows[0]}


def _shorter(column: list[Any]) -> Any:
    if not all(isinstance(value, str) for value in column):
        return column
    place = {value: at for at, value in enumerate(dict.fromkeys(column))}
    pooled = {"values": list(place), "index": [place[value] for value in column]}
    return min(column, pooled, key=lambda form: len(_json(form)))


def _rows(table: Any) -> Any:
    if not isinstance(table, dict):
        return table
    columns = {key: _column(value) for key, value in table.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _column(value: Any) -> list[Any]:
    if isinstance(value, dict):
        try:
            strings, index = value["values"], value["index"]
            return [strings[at] for at in index]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"a column of repeated strings is malformed: {error!r}") from error
    if not isinstance(value, list):
        raise ValueError(f"a column is a list, not {type(value).__name__}")
    return value
