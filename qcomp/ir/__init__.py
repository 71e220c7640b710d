"""What a graph is: types, ops, graph, verifier, text form, interpreter."""

from qcomp.ir.graph import Graph, Node, Value
from qcomp.ir.interpreter import run
from qcomp.ir.registry import Attr, Call, Interval, Op, lookup, op_names, register
from qcomp.ir.text import graphs_equal, parse_graph, print_graph
from qcomp.ir.types import DType, Quantization, TensorType
from qcomp.ir.verify import verify

__all__ = [
    "Attr",
    "Call",
    "DType",
    "Graph",
    "Interval",
    "Node",
    "Op",
    "Quantization",
    "TensorType",
    "Value",
    "graphs_equal",
    "lookup",
    "op_names",
    "parse_graph",
    "print_graph",
    "register",
    "run",
    "verify",
]
