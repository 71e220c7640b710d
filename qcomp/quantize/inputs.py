"""What a model's inputs accept, and whether given arrays fit: names, types, shapes, values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from qcomp.errors import QcompError
from qcomp.quantize.masks import mask_margins


@dataclass(frozen=True)
class InputSpec:
    """A model input: its name, element type and shape; None where the model leaves a dimension open.

    `masks`: it leads to nothing but a Softmax, so that it may hold −inf."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    masks: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}{shape_text(self.shape)}"


def shape_text(shape: Sequence[int | None]) -> str:
    return f"[{', '.join('?' if d is None else str(d) for d in shape)}]"


def inputs_of(model: onnx.ModelProto) -> tuple[InputSpec, ...]:
    """The inputs that a run has to be given: graph inputs that are not initializers."""
    constants = {c.name for c in model.graph.initializer}
    masks = mask_margins(model)
    specs = []
    for value in model.graph.input:
        if value.name in constants:
            continue
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not kind.elem_type:
            raise QcompError("is not a dense tensor", where=f"input {value.name}", fix="give a model of tensors")
        shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
        specs.append(InputSpec(value.name, dtype, shape, value.name in masks))
    return tuple(specs)


def only_input(where: str, inputs: Sequence[InputSpec]) -> InputSpec:
    if len(inputs) != 1:
        raise QcompError(
            f"one array without a name, but the model has {len(inputs)} inputs",
            where=where,
            fix=f"give an .npz with the keys {', '.join(spec.name for spec in inputs)}",
        )
    return inputs[0]


def check_headers(
    where: str, inputs: Sequence[InputSpec], headers: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
) -> int:
    """Check keys, shapes and types, without values; returns the number of samples."""
    counts: dict[str, int] = {}
    for spec in inputs:
        if spec.name not in headers:
            raise QcompError(
                f"no key {spec.name!r} (found: {', '.join(sorted(headers)) or 'nothing'})",
                where=where,
                fix=f"save an array for the model input {spec}",
            )
        shape, dtype = headers[spec.name]
        counts[spec.name] = sample_count(where, spec, shape, dtype)
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise QcompError(
            f"the inputs have different numbers of samples ({found})", where=where, fix="make the first axes equal"
        )
    return next(iter(counts.values()), 0)


def sample_count(where: str, spec: InputSpec, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """How many samples an array of this shape and type holds for an input; QcompError if it does not fit."""
    place = f"{where}: key {spec.name!r}"
    if not _fits_type(dtype, spec.dtype):
        raise QcompError(f"type {dtype}, expected {spec.dtype}", where=place, fix="convert the array")
    batch = _batch(spec)
    rank = len(spec.shape)
    expected = (None, *spec.shape[1:]) if batch else (None, *spec.shape)
    if len(shape) == rank + 1 and rank:
        # One array of the input's full shape for each sample.
        expected, batch = (None, *spec.shape), 0
    fits = len(shape) == len(expected) and all(
        want is None or have == want for have, want in zip(shape[1:], expected[1:], strict=True)
    )
    if not fits:
        form = ", ".join(["samples", *("?" if d is None else str(d) for d in expected[1:])])
        transposed = None not in expected[1:] and sorted(shape[1:]) == sorted(d for d in expected[1:] if d is not None)
        fix = "transpose the array" if transposed else "the first axis counts samples"
        raise QcompError(f"shape {shape_text(shape)}, expected [{form}]", where=place, fix=fix)
    if 0 in shape:
        raise QcompError(f"is empty, shape {shape_text(shape)}", where=place, fix="give at least one sample")
    if batch > 1 and shape[0] % batch:
        raise QcompError(
            f"{shape[0]} samples do not fill batches of {batch}", where=place, fix=f"give a multiple of {batch}"
        )
    return shape[0] // max(batch, 1)


def take(where: str, spec: InputSpec, array: NDArray[Any], i: int) -> NDArray[Any]:
    """What sample `i` feeds to an input, in the input's type; QcompError for NaN, infinity or overflow."""
    batch = 0 if array.ndim == len(spec.shape) + 1 else _batch(spec)
    part = np.asarray(array[i * batch : (i + 1) * batch] if batch else array[i])
    return converted(f"{where}: key {spec.name!r}, sample {i}", spec, part)


def fed(where: str, spec: InputSpec, sample: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """What a sample, given as the arrays of one run, feeds to an input; QcompError if it does not fit."""
    if spec.name not in sample:
        raise QcompError(
            f"no key {spec.name!r} (found: {', '.join(sorted(sample)) or 'nothing'})",
            where=where,
            fix=f"give an array for the model input {spec}",
        )
    place, part = f"{where}: key {spec.name!r}", np.asarray(sample[spec.name])
    if not _fits_type(part.dtype, spec.dtype):
        raise QcompError(f"type {part.dtype}, expected {spec.dtype}", where=place, fix="convert the array")
    if 0 in part.shape:
        fix = "bind the dimension to another size" if 0 in spec.shape else "give at least one sample"
        raise QcompError(f"is empty, shape {shape_text(part.shape)}", where=place, fix=fix)
    fits = len(part.shape) == len(spec.shape) and all(
        want in (None, have) for have, want in zip(part.shape, spec.shape, strict=True)
    )
    if not fits:
        transposed = None not in spec.shape and sorted(part.shape) == sorted(d for d in spec.shape if d is not None)
        fix = "transpose the array" if transposed else "give it this shape"
        raise QcompError(f"shape {shape_text(part.shape)}, expected {shape_text(spec.shape)}", where=place, fix=fix)
    return converted(place, spec, part)


def converted(place: str, spec: InputSpec, part: NDArray[Any]) -> NDArray[Any]:
    """The array in the input's type; QcompError for NaN, overflow, and infinity (but −inf in a mask)."""
    with np.errstate(over="ignore"):
        value = np.ascontiguousarray(part, spec.dtype).reshape(part.shape)
    if spec.dtype.kind == "f" and not (np.isfinite(value) | (spec.masks & (part == -np.inf))).all():
        raise QcompError(
            "holds NaN or infinity, or a number too large for the input's type", where=place, fix="repair the data"
        )
    if spec.dtype.kind in "iu" and not np.array_equal(value, part):
        raise QcompError(f"holds numbers too large for {spec.dtype}", where=place, fix="repair the data")
    return value


def _batch(spec: InputSpec) -> int:
    """Samples in one run: the input's first dimension, 1 if open; 0 for a scalar input."""
    return (spec.shape[0] or 1) if spec.shape else 0


def _fits_type(found: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Numbers may be converted where the meaning stays: any real number to float, any integer to integer."""
    accepted = {"f": "fiub", "i": "iu", "u": "iu", "b": "b"}
    return found.kind in accepted.get(wanted.kind, "")
