"""ONNX models become graphs."""

from qcomp.frontends.onnx.importer import load_onnx

__all__ = ["load_onnx"]
