"""The passes by name, and the text form of a pipeline: `fold-constants,fuse-batch-norm{max_size=3}`.

A new pass is a new file in this folder; nothing else has to know of it.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from functools import cache
from types import MappingProxyType, UnionType

import qcomp.passes
from qcomp.errors import QcompError
from qcomp.passes.base import Pass


@cache
def pass_table() -> MappingProxyType[str, type[Pass]]:
    """Every pass of the package by name, sorted; two passes of one name are a defect."""
    table: dict[str, type[Pass]] = {}
    for module_name in sorted(m.name for m in pkgutil.iter_modules(qcomp.passes.__path__)):
        module = importlib.import_module(f"qcomp.passes.{module_name}")
        for found in vars(module).values():
            if not (inspect.isclass(found) and issubclass(found, Pass)) or inspect.isabstract(found):
                continue
            if found.__module__ != module.__name__:
                continue
            if found.name in table:
                raise ValueError(f"pass {found.name} is defined twice")
            table[found.name] = found
    return MappingProxyType(dict(sorted(table.items())))


def pass_names() -> tuple[str, ...]:
    return tuple(pass_table())


def lookup_pass(name: str) -> type[Pass]:
    """The pass of that name; QcompError with close names when there is none."""
    table = pass_table()
    if name not in table:
        near = difflib.get_close_matches(name, table, n=3)
        fix = f"did you mean {', '.join(near)}?" if near else f"the passes are {', '.join(table)}"
        raise QcompError(f"no pass is called {name!r}", fix=fix)
    return table[name]


def pass_options(cls: type[Pass]) -> dict[str, object]:
    """Option names of a pass with their types, in order."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


def format_pipeline(passes: Iterable[Pass]) -> str:
    return ",".join(map(str, passes))


def parse_pipeline(text: str) -> list[Pass]:
    """Passes of a pipeline text; QcompError for an unknown pass or option, or a value of another type."""
    return [_parse_pass(item) for item in _split(text, text) if item.strip()]


def _split(text: str, whole: str) -> Iterator[str]:
    """Items between the commas that are outside of all brackets."""
    depth, start = 0, 0
    for position, char in enumerate(text):
        if char in "{[":
            depth += 1
        elif char in "}]":
            depth -= 1
            if depth < 0:
                break
        elif char == "," and depth == 0:
            yield text[start:position]
            start = position + 1
    if depth:
        raise QcompError("brackets do not match", where=f"pass pipeline {whole!r}")
    yield text[start:]


def _parse_pass(item: str) -> Pass:
    match = re.fullmatch(r"\s*([A-Za-z0-9_-]+)\s*(?:\{(.*)\})?\s*", item, re.DOTALL)
    if match is None:
        raise QcompError(
            f"{item.strip()!r} is not a pass", where="pass pipeline", fix="write name or name{option=value,...}"
        )
    cls = lookup_pass(match[1])
    options = pass_options(cls)
    given: dict[str, object] = {}
    for setting in _split(match[2] or "", item):
        if not setting.strip():
            continue
        key, equals, value = (part.strip() for part in setting.partition("="))
        if key not in options:
            near = difflib.get_close_matches(key, options, n=1)
            fix = f"did you mean {near[0]}?" if near else f"its options are {', '.join(options) or 'none'}"
            raise QcompError(f"no option {key!r}", where=f"pass {cls.name}", fix=fix)
        if not equals:
            raise QcompError(f"option {key!r} has no value", where=f"pass {cls.name}", fix=f"write {key}=VALUE")
        given[key] = _parse_value(value, options[key], f"pass {cls.name}, option {key}")
    for f in fields(cls):
        if f.name not in given and f.default is MISSING and f.default_factory is MISSING:
            raise QcompError(f"option {f.name!r} is required", where=f"pass {cls.name}")
    return cls(**given)


def _parse_value(text: str, kind: object, where: str) -> object:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, UnionType) and type(None) in arguments:
        if text == "none":
            return None
        (kind,) = (a for a in arguments if a is not type(None))
        return _parse_value(text, kind, where)
    if origin is typing.Literal:
        if text not in arguments:
            raise QcompError(f"{text!r} is not one of {', '.join(map(str, arguments))}", where=where)
        return text
    if origin is tuple:
        inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        return tuple(_parse_value(i.strip(), arguments[0], where) for i in _split(inner, text) if i.strip())
    if kind is bool:
        if text not in ("true", "false"):
            raise QcompError(f"{text!r} is not true or false", where=where)
        return text == "true"
    if kind is str:
        return text
    if kind is int or kind is float:
        try:
            return int(text) if kind is int else float(text)
        except ValueError:
            article = "an integer" if kind is int else "a number"
            raise QcompError(f"{text!r} is not {article}", where=where) from None
    raise QcompError("cannot be given as text", where=where, fix="run the pass from Python")
