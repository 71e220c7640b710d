"""Which values the nodes of a graph, subgraph or function see, by their ONNX names."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto

from qcomp.errors import QcompError
from qcomp.frontends.onnx.tensors import NARROW, dense, read_tensor
from qcomp.ir.graph import Value

if TYPE_CHECKING:
    from qcomp.frontends.onnx.importer import Importer


@dataclass
class Scope:
    """The values that are visible to a list of nodes, and the opsets those nodes are written in.

    Initializers become constants when they are first used.
    """

    opsets: Mapping[str, int]
    values: MutableMapping[str, Value]
    importer: Importer
    initializers: dict[str, TensorProto | onnx.SparseTensorProto] = field(default_factory=dict)
    parent: Scope | None = None
    prefix: str = ""

    def find(self, name: str) -> Value:
        if name in self.values:
            return self.values[name]
        scope: Scope | None = self
        while scope is not None:
            if name in scope.initializers:
                tensor = scope.initializers[name]
                sparse = isinstance(tensor, onnx.SparseTensorProto)
                array = dense(tensor) if sparse else read_tensor(tensor, self.importer.folder)
                value = self.importer.builder.constant(array, name=scope.prefix + name)
                if not sparse and tensor.data_type in NARROW:
                    self.importer.narrow[value] = tensor.data_type
                scope.values[name] = value
                return value
            scope = scope.parent
        raise QcompError(f"nothing computes the tensor {name!r}", fix="export the model again")

    def inner(self, prefix: str = "") -> Scope:
        """A scope for a subgraph: sees this one's values, keeps its own to itself."""
        values: MutableMapping[str, Value] = ChainMap({}, self.values)
        return Scope(self.opsets, values, self.importer, parent=self, prefix=self.prefix + prefix)

    def enter(self, proto: onnx.GraphProto) -> None:
        """Adds the initializers of a graph; QcompError when two have one name."""
        for tensor in proto.initializer:
            self._enter_once(tensor.name, tensor)
        for sparse in proto.sparse_initializer:
            self._enter_once(sparse.values.name, sparse)

    def _enter_once(self, name: str, item: TensorProto | onnx.SparseTensorProto) -> None:
        if name in self.initializers:
            raise QcompError(f"two initializers are called {name!r}", fix="export the model again")
        self.initializers[name] = item
