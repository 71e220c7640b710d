"""Converters, one family of ONNX ops a file."""
