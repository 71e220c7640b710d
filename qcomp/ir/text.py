"""The text form of a graph (`.qir`): what people read, what tests compare, and what parses back to an equal graph.

    graph @model {requantize = "float"} {
      input %x: f32[1,3,8,8]
      const %w: f32[4,3,1,1] = [0.5, ...]
      %y: f32[1,4,8,8] = conv2d(%x, %w) {strides = [1, 1]} @"Conv_0"
      output %y
    }

Constants of up to 64 elements are written as numbers, larger ones as base64 of the zlib-compressed little-endian
bytes (`z"..."`).  Attributes that have their default value are left out.  `#` starts a comment.
"""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from qcomp.errors import QcompError
from qcomp.ir.graph import Graph, Value
from qcomp.ir.registry import REQUIRED, Attribute, lookup
from qcomp.ir.types import DType, Quantization, TensorType

T = TypeVar("T")

_INLINE_ELEMENTS = 64
_BARE = re.compile(r"[A-Za-z0-9_./:\-]*[A-Za-z0-9_./\-]\Z")


def print_graph(graph: Graph, *, elide: bool = False) -> str:
    """The text of a graph; with `elide`, large constants are shown as `...` (and no longer parse)."""
    attrs = _attributes(graph.attrs.items())
    lines = [f"graph @{_name(graph.name)} {attrs} {{" if attrs else f"graph @{_name(graph.name)} {{"]
    for value in graph.inputs:
        lines.append(f"  input {_typed(value)}")
    for value in graph.constants:
        lines.append(f"  const {_typed(value)} = {_data(value.array, elide)}")
    for node in graph.nodes:
        results = ", ".join(_typed(v) for v in node.outputs)
        operands = ", ".join("_" if v is None else f"%{_name(v.name)}" for v in node.inputs)
        shown = {k: v for k, v in node.attrs.items() if not _is_default(v, node.op.attributes[k].default)}
        attrs = _attributes(shown.items())
        label = f" @{json.dumps(node.name)}" if node.name != node.outputs[0].name else ""
        lines.append(f"  {results} = {node.op.name}({operands}){' ' + attrs if attrs else ''}{label}")
    for value in graph.outputs:
        lines.append(f"  output %{_name(value.name)}")
    return "\n".join([*lines, "}", ""])


def _is_default(value: Attribute, default: object) -> bool:
    return default is not REQUIRED and type(value) is type(default) and value == default


def _name(name: str) -> str:
    return name if _BARE.match(name) else json.dumps(name)


def _typed(value: Value) -> str:
    return f"%{_name(value.name)}: {format_type(value.type)}"


def format_type(type: TensorType) -> str:
    text = f"{type.dtype.value}[{','.join(map(str, type.shape))}]"
    return f"{text} {_quant(type.quant)}" if type.quant is not None else text


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(float(value))
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def _quant(quant: Quantization) -> str:
    if quant.axis is None:
        return f"q({_number(quant.scale[0])}, {quant.zero_point[0]})"
    scales = ", ".join(_number(s) for s in quant.scale)
    zeros = ", ".join(map(str, quant.zero_point)) if any(quant.zero_point) else ""
    return f"q([{scales}], [{zeros}], axis={quant.axis})"


def _attributes(items: Iterable[tuple[str, Attribute]]) -> str:
    body = ", ".join(f"{k} = {_attribute(v)}" for k, v in items)
    return f"{{{body}}}" if body else ""


def _attribute(value: Attribute) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, DType):
        return f"!{value.value}"
    if isinstance(value, Quantization):
        return _quant(value)
    return "[" + ", ".join(_attribute(v) for v in value) + "]"


def _data(array: np.ndarray, elide: bool) -> str:
    if array.size <= _INLINE_ELEMENTS and array.dtype != np.float64:
        flat = array.reshape(-1)
        if array.dtype == np.bool_:
            return "[" + ", ".join("true" if v else "false" for v in flat) + "]"
        if array.dtype.kind == "f":
            # repr of the float64 that equals it: exact, and NaN payloads do not matter
            return "[" + ", ".join(_number(float(v)) for v in flat) + "]"
        return "[" + ", ".join(str(int(v)) for v in flat) + "]"
    if elide:
        return "..."
    raw = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return f'z"{base64.b64encode(zlib.compress(raw, 6)).decode()}"'


# ---- parsing ---------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*)|(?P<newline>\n)
    |(?P<blob>z"[A-Za-z0-9+/=]*")
    |(?P<ref>[%@](?:"(?:[^"\\]|\\.)*"|[A-Za-z0-9_./:\-]+))
    |(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<number>[+-]?(?:inf\b|nan\b|\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?))
    |(?P<word>[A-Za-z_][A-Za-z0-9_.]*)
    |(?P<punct>[{}()\[\],:=!])""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class _Tok:
    kind: str
    text: str
    line: int


def _tokenize(text: str, source: str) -> list[_Tok]:
    tokens, position, line = [], 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise QcompError(f"unexpected {text[position]!r}", where=f"{source}:{line}")
        kind = match.lastgroup or ""
        if kind == "newline":
            line += 1
        elif kind != "space":
            # A type's "x:" must not swallow its colon into the name: names may hold ':' but not end with it.
            word = match.group()
            if kind == "ref" and word.endswith(":") and not word.endswith('":'):
                word = word.rstrip(":")
            tokens.append(_Tok(kind, word, line))
            position += len(word)
            continue
        position = match.end()
    tokens.append(_Tok("end", "end of text", line))
    return tokens


class _Parser:
    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self.tokens = _tokenize(text, source)
        self.position = 0
        self.graph = Graph()

    def error(self, what: str) -> QcompError:
        return QcompError(what, where=f"{self.source}:{self.tokens[self.position].line}")

    def fault(self, what: str) -> QcompError:
        """An error in what was read, not at the token that comes next."""
        return QcompError(what, where=f"{self.source}:{self.tokens[self.position - 1].line}")

    @property
    def peek(self) -> _Tok:
        return self.tokens[self.position]

    def next(self) -> _Tok:
        token = self.tokens[self.position]
        self.position += 1
        return token

    def accept(self, text: str) -> bool:
        if self.peek.text == text and self.peek.kind in ("punct", "word"):
            self.position += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.error(f"expected {text!r}, found {self.peek.text!r}")

    def kind(self, kind: str) -> str:
        if self.peek.kind != kind:
            raise self.error(f"expected a {kind}, found {self.peek.text!r}")
        return self.next().text

    def ref(self, sigil: str) -> str:
        text = self.kind("ref")
        if text[0] != sigil:
            raise self.fault(f"expected {sigil}name, found {text!r}")
        body = text[1:]
        return self.unquote(body) if body.startswith('"') else body

    def unquote(self, text: str) -> str:
        try:
            return str(json.loads(text))
        except ValueError:
            raise self.fault(f"{text!r} is not a string in quotes") from None

    def integer(self) -> int:
        text = self.kind("number")
        try:
            return int(text)
        except ValueError:
            raise self.fault(f"expected an integer, found {text!r}") from None

    def dtype(self) -> DType:
        word = self.kind("word")
        try:
            return DType(word)
        except ValueError:
            raise self.fault(f"{word!r} is no element type") from None

    def type(self) -> TensorType:
        dtype = self.dtype()
        self.expect("[")
        shape = tuple(self.rest(self.integer))
        return TensorType(dtype, shape, self.quant() if self.peek.text == "q" else None)

    def quant(self) -> Quantization:
        self.expect("q")
        self.expect("(")
        if self.accept("["):
            scales = self.rest(self.number)
            self.expect(",")
            self.expect("[")
            zeros = self.rest(self.integer) or [0] * len(scales)
            self.expect(",")
            self.expect("axis")
            self.expect("=")
            axis: int | None = self.integer()
        else:
            scales = [self.number()]
            self.expect(",")
            zeros, axis = [self.integer()], None
        self.expect(")")
        return Quantization(tuple(scales), tuple(zeros), axis)

    def number(self) -> float:
        return float(self.kind("number"))

    def rest(self, item: Callable[[], T]) -> list[T]:
        """The rest of a list after its '['."""
        found: list[T] = []
        while not self.accept("]"):
            found.append(item())
            if not self.accept(","):
                self.expect("]")
                break
        return found

    def attribute(self, kind: str) -> Attribute:
        if self.accept("!"):
            return self.dtype()
        if self.accept("["):
            return tuple(self.rest(lambda: self.attribute(kind.rstrip("s"))))  # type: ignore[return-value]
        if self.peek.kind == "string":
            return self.unquote(self.next().text)
        if self.peek.text == "q":
            return self.quant()
        if self.accept("true"):
            return True
        if self.accept("false"):
            return False
        text = self.kind("number")
        if kind == "float":
            return float(text)
        try:
            return int(text)
        except ValueError:
            return float(text)

    def attributes(self, kinds: dict[str, str]) -> dict[str, Attribute]:
        found: dict[str, Attribute] = {}
        self.expect("{")
        while not self.accept("}"):
            name = self.kind("word")
            self.expect("=")
            found[name] = self.attribute(kinds.get(name, ""))
            if not self.accept(","):
                self.expect("}")
                break
        return found

    def data(self, type: TensorType) -> np.ndarray:
        dtype = type.dtype.numpy
        if self.peek.kind == "blob":
            text = self.next().text
            try:
                raw = zlib.decompress(base64.b64decode(text[2:-1], validate=True))
                flat = np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype)
            except (ValueError, zlib.error) as error:
                raise self.fault(f"constant data is damaged ({error})") from None
        else:
            self.expect("[")
            items = self.rest(lambda: self.next().text)
            try:
                if dtype == np.bool_:
                    flat = np.array([{"true": True, "false": False}[i] for i in items], dtype)
                elif dtype.kind == "f":
                    flat = np.array([float(i) for i in items], np.float64).astype(dtype)
                else:
                    flat = np.array([int(i) for i in items], dtype)
            except (KeyError, ValueError, OverflowError) as error:
                raise self.fault(f"constant does not fit {type.dtype.value}: {error}") from None
        if flat.size != type.elements:
            raise self.fault(f"constant has {flat.size} elements, its type {type.elements}")
        return flat.reshape(type.shape)

    def statement(self) -> None:
        graph = self.graph
        if self.accept("input"):
            name = self.ref("%")
            self.expect(":")
            graph.input(name, self.type())
            return
        if self.accept("const"):
            name = self.ref("%")
            self.expect(":")
            type = self.type()
            self.expect("=")
            if graph.has_value(name):
                raise self.fault(f"%{name} is defined twice")
            graph.constant(self.data(type), name, type.quant)
            return
        if self.accept("output"):
            graph.outputs.append(self.known(self.ref("%")))
            return
        results: list[tuple[str, TensorType]] = []
        while True:
            name = self.ref("%")
            self.expect(":")
            results.append((name, self.type()))
            if not self.accept(","):
                break
        self.expect("=")
        op = self.kind("word")
        definition = lookup(op)
        self.expect("(")
        operands: list[Value | None] = []
        while not self.accept(")"):
            operands.append(None if self.accept("_") else self.known(self.ref("%")))
            if not self.accept(","):
                self.expect(")")
                break
        kinds = {k: spec.kind for k, spec in definition.attributes.items()}
        attrs = self.attributes(kinds) if self.peek.text == "{" else {}
        label = self.ref("@") if self.peek.kind == "ref" and self.peek.text[0] == "@" else ""
        for name, _ in results:
            if graph.has_value(name):
                raise self.fault(f"%{name} is defined twice")
        node = graph.add(
            op, operands, attrs, names=[n for n, _ in results], node_name=label, quants=[t.quant for _, t in results]
        )
        for value, (name, type) in zip(node.outputs, results, strict=True):
            if value.type != type:
                raise self.fault(f"%{name} is written as {format_type(type)}, {op} gives {format_type(value.type)}")

    def known(self, name: str) -> Value:
        if not self.graph.has_value(name):
            raise self.fault(f"%{name} is used before it is defined")
        return self.graph.value(name)

    def parse(self) -> Graph:
        self.expect("graph")
        self.graph.name = self.ref("@")
        self.expect("{")
        # `graph @m {attrs} {` or `graph @m {`
        if self.peek.kind == "word" and self.tokens[self.position + 1].text == "=":
            self.position -= 1
            self.graph.attrs.update(self.attributes({}))
            self.expect("{")
        while not self.accept("}"):
            self.statement()
        if self.peek.kind != "end":
            raise self.error(f"text after the graph: {self.peek.text!r}")
        return self.graph


def parse_graph(text: str, source: str = "<text>") -> Graph:
    """The graph of a text; QcompError with the line for anything that is not one."""
    return _Parser(text, source).parse()


def graphs_equal(a: Graph, b: Graph) -> bool:
    """Same text, constants included: the equality that round trips and tests mean."""
    return print_graph(a) == print_graph(b)
