"""ONNX tensors as numpy arrays, and ONNX element types as ours.

float16 and bfloat16 are storage formats here: their values are computed in float32.  Four- and two-bit integers
are held in eight bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, numpy_helper

from qcomp.errors import QcompError
from qcomp.frontends.onnx.unsupported import Unsupported
from qcomp.ir.types import DType

# What the interface of a graph (its inputs and outputs) may hold.
INTERFACE: dict[int, DType] = {
    TensorProto.FLOAT: DType.F32,
    TensorProto.DOUBLE: DType.F64,
    TensorProto.FLOAT16: DType.F16,
    TensorProto.INT8: DType.I8,
    TensorProto.UINT8: DType.U8,
    TensorProto.INT16: DType.I16,
    TensorProto.UINT16: DType.U16,
    TensorProto.INT32: DType.I32,
    TensorProto.UINT32: DType.U32,
    TensorProto.INT64: DType.I64,
    TensorProto.UINT64: DType.U64,
    TensorProto.BOOL: DType.BOOL,
}

# What a constant becomes, for element types that only constants (and intermediate results) may have.
_STORAGE: dict[int, DType] = {
    TensorProto.FLOAT16: DType.F32,
    TensorProto.BFLOAT16: DType.F32,
    TensorProto.INT4: DType.I8,
    TensorProto.UINT4: DType.U8,
    **{
        getattr(TensorProto, name): dtype
        for name, dtype in (("INT2", DType.I8), ("UINT2", DType.U8))
        if hasattr(TensorProto, name)  # newer onnx only
    },
}

# Element types whose integers are held in a wider dtype.
NARROW = frozenset(_STORAGE) - {TensorProto.FLOAT16, TensorProto.BFLOAT16}


def element_name(element: int) -> str:
    """The ONNX name of an element type, "FLOAT16"."""
    try:
        return str(TensorProto.DataType.Name(element))
    except ValueError:
        return f"element type {element}"


def computed_dtype(element: int) -> DType:
    """The dtype in which values of an ONNX element type are computed; Unsupported when there is none."""
    if element in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        return DType.F32
    dtype = INTERFACE.get(element)
    if dtype is None:
        raise Unsupported(
            f"{element_name(element)} is not supported", fix="use FLOAT or an integer type of 8 to 64 bits"
        )
    return dtype


def read_tensor(tensor: TensorProto, folder: Path | None = None) -> np.ndarray:
    """The array of a constant, in its computed dtype.

    `folder` is where external data lies.  Raises QcompError for missing or short external data, a tensor whose
    data does not fill its shape, and element types that nothing here can hold.
    """
    where = f"tensor {tensor.name!r}" if tensor.name else "a constant"
    if tensor.data_type not in INTERFACE and tensor.data_type not in _STORAGE:
        raise Unsupported(
            f"{element_name(tensor.data_type)} is not supported", where=where, fix="use FLOAT or an integer type"
        )
    if external_data_helper.uses_external_data(tensor):
        tensor = _with_data(tensor, folder, where)
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise QcompError(f"its data does not fit its shape {list(tensor.dims)}: {reason}", where=where) from None
    dtype = _STORAGE.get(tensor.data_type) or INTERFACE[tensor.data_type]
    return np.ascontiguousarray(array.astype(dtype.numpy)).reshape(array.shape)


def _with_data(tensor: TensorProto, folder: Path | None, where: str) -> TensorProto:
    location = next((e.value for e in tensor.external_data if e.key == "location"), "")
    if folder is None:
        raise QcompError(
            f"its data is in the file {location!r}", where=where, fix="load the model from its file, not from memory"
        )
    loaded = TensorProto()
    loaded.CopyFrom(tensor)
    try:
        external_data_helper.load_external_data_for_tensor(loaded, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        reason = str(error).split("\n")[0]
        raise QcompError(
            f"its external data {location!r} cannot be read: {reason}", where=where, fix="put the file beside the model"
        ) from None
    loaded.data_location = TensorProto.DEFAULT
    return loaded


def dense(sparse: onnx.SparseTensorProto) -> np.ndarray:
    """A sparse constant as a dense array."""
    values = read_tensor(sparse.values)
    indices = numpy_helper.to_array(sparse.indices)
    result = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        result.reshape(-1)[indices] = values
    else:
        result[tuple(indices.T)] = values
    return result


def static_dims(type: onnx.TypeProto.Tensor) -> Iterable[int | str]:
    """Dimensions of a tensor type: a number, or the symbol ("" without one) of a dynamic dimension.

    A negative number is none that a tensor can have; it is the symbol of a dimension left open, as -1 often means.
    """
    for dim in type.shape.dim:
        if not dim.HasField("dim_value"):
            yield str(dim.dim_param)
        else:
            yield int(dim.dim_value) if dim.dim_value >= 0 else str(dim.dim_value)
