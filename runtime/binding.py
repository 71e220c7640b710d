"""Matching a caller's arrays with a model's inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import QcompError
from qcomp.runtime.artifact import TensorInfo

Array = NDArray[Any]


class Binding:
    """The inputs and outputs of one model; `model` names it in errors."""

    def __init__(self, model: str, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]) -> None:
        self._model = model
        self._inputs, self._outputs = inputs, outputs
        self._input_names = tuple(tensor.name for tensor in inputs)
        self._output_names = tuple(tensor.name for tensor in outputs)

    def inputs(self, given: Mapping[str, Array] | Array, more: tuple[Array, ...]) -> list[Array]:
        """One C-contiguous array for each input: the caller's own where it is one, else a copy."""
        if isinstance(given, Mapping):
            if more:
                raise self._misfit("both a mapping and further arrays given", "give one or the other")
            self._check_names("input", given, self._input_names)
            missing = [name for name in self._input_names if name not in given]
            if missing:
                names = ", ".join(self._input_names)
                raise self._misfit(f"missing input {', '.join(missing)}", f"the model takes {names}")
            values: Sequence[Array] = [given[name] for name in self._input_names]
        else:
            values = (given, *more)
            if len(values) != len(self._inputs):
                names = ", ".join(self._input_names)
                raise self._misfit(
                    f"{len(values)} arrays given, the model takes {len(self._inputs)}",
                    f"give {names} in this order" if names else "give none",
                )
        return [self._input(value, tensor) for value, tensor in zip(values, self._inputs, strict=True)]

    def fixed_inputs(self, given: Mapping[str, Array] | None) -> list[Array]:
        """One array for each input that a run can read in place: the caller's own, or one of zeros."""
        given = {} if given is None else given
        self._check_names("input", given, self._input_names)
        arrays = []
        for tensor in self._inputs:
            array = given.get(tensor.name)
            if array is None:
                array = np.zeros(tensor.shape, tensor.dtype)
            elif not isinstance(array, np.ndarray):
                raise self._misfit(f"input {tensor.name} is a {type(array).__name__}", "give a numpy array")
            elif self._input(array, tensor) is not array:
                raise self._misfit(f"input {tensor.name} is not contiguous", "give np.ascontiguousarray of it")
            arrays.append(array)
        return arrays

    def named_inputs(self, arrays: Sequence[Array]) -> dict[str, Array]:
        return dict(zip(self._input_names, arrays, strict=True))

    def outputs(self, out: Mapping[str, Array] | None, inputs: Sequence[Array]) -> list[Array]:
        """One array for each output: the caller's from `out`, else a new one."""
        if out is None:
            return [np.empty(tensor.shape, tensor.dtype) for tensor in self._outputs]
        self._check_names("output", out, self._output_names)
        results: list[Array] = []
        for tensor in self._outputs:
            if tensor.name in out:
                results.append(self._output(out[tensor.name], tensor, (*inputs, *results)))
            else:
                results.append(np.empty(tensor.shape, tensor.dtype))
        return results

    def named_outputs(self, results: Sequence[Array]) -> dict[str, Array]:
        return dict(zip(self._output_names, results, strict=True))

    def _input(self, value: Array, tensor: TensorInfo) -> Array:
        array = np.asarray(value)
        self._check_type("input", array, tensor)
        flags = array.flags
        return array if flags.c_contiguous and flags.aligned else array.copy(order="C")

    def _output(self, array: Array, tensor: TensorInfo, others: tuple[Array, ...]) -> Array:
        if not isinstance(array, np.ndarray):
            raise self._misfit(f"output {tensor.name} is a {type(array).__name__}", "give a numpy array")
        self._check_type("output", array, tensor)
        flags = array.flags
        if not (flags.c_contiguous and flags.aligned and flags.writeable):
            raise self._misfit(f"output {tensor.name} is not contiguous and writable", "give a new numpy array")
        if any(np.may_share_memory(array, other) for other in others):
            raise self._misfit(f"output {tensor.name} shares memory with another array", "give it memory of its own")
        return array

    def _check_names(self, role: str, given: Mapping[str, Array], known: tuple[str, ...]) -> None:
        if not isinstance(given, Mapping):
            raise self._misfit(f"{role}s are a {type(given).__name__}", f"give a dict of {', '.join(known)} to arrays")
        unknown = [str(name) for name in given if name not in known]
        if unknown:
            raise self._misfit(f"unknown {role} {', '.join(unknown)}", f"the model has {', '.join(known)}")

    def _check_type(self, role: str, array: Array, tensor: TensorInfo) -> None:
        if array.dtype != tensor.dtype:
            # A converted copy of an output would be filled in place of the caller's array.
            raise self._misfit(
                f"{role} {tensor.name} is {array.dtype}, the model has {tensor.dtype}",
                _type_advice(array, tensor) if role == "input" else f"give a {tensor.dtype} array",
            )
        if array.shape != tensor.shape:
            raise self._misfit(
                f"{role} {tensor.name} has shape {list(array.shape)}, the model has {list(tensor.shape)}",
                _shape_advice(array.shape, tensor.shape),
            )

    def _misfit(self, what: str, fix: str) -> QcompError:
        return QcompError(what, where=self._model, fix=fix)


def _type_advice(array: Array, tensor: TensorInfo) -> str:
    """What makes an input one of the model's type; reals that it takes as integers are on its grid."""
    name = tensor.dtype.name
    if array.dtype.kind != "f" or tensor.dtype.kind not in "iu" or len(tensor.scale) != 1:
        return f"convert it, as with .astype({name!r})"
    limits, zero = np.iinfo(tensor.dtype), tensor.zero_point[0] if tensor.zero_point else 0
    grid = f"numpy.round(x / {tensor.scale[0]!r}) + {zero}"
    return f"quantize it: numpy.clip({grid}, {limits.min}, {limits.max}).astype({name!r})"


def _shape_advice(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """What makes an array of one shape one of the other; a reshape would scramble what a transpose mends."""
    if len(found) == len(wanted) and sorted(found) == sorted(wanted):
        return "transpose it, as with numpy.transpose"
    if math.prod(found) == math.prod(wanted):
        return "reshape it"
    if wanted and found[1:] == wanted[1:] and found[0] > wanted[0]:
        return f"run {wanted[0]} at a time, or compile the model for this shape"
    return "compile the model for this shape"
