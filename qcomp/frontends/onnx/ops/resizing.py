"""Resize and Upsample."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto, helper

from qcomp.frontends.onnx.fallback import evaluate
from qcomp.frontends.onnx.node import OnnxNode
from qcomp.frontends.onnx.table import onnx_op
from qcomp.ir.graph import Value
from qcomp.ir.registry import Attribute
from qcomp.ir.types import DType


@onnx_op("Upsample")
def upsample(node: OnnxNode) -> Value:
    x = node.value(0)
    scales = node.constant(1, "the scales").reshape(-1) if node.opset >= 9 else node.attributes["scales"].floats
    factors = tuple(float(np.float32(s)) for s in scales)
    sizes = tuple(math.floor(d * s) for d, s in zip(x.shape, factors, strict=True))
    return _resize(node, x, sizes, factors, node.attr_str("mode", "nearest"), "asymmetric", "floor")


@onnx_op("Resize")
def resize(node: OnnxNode) -> Value:
    x = node.value(0)
    rank = len(x.shape)
    axes = tuple(node.normalize(a, rank) for a in node.attr_ints("axes", range(rank)))
    mode = node.attr_str("mode", "nearest")
    if node.opset < 11:
        scales, sizes = node.optional_constant(1, "the scales"), None
        coordinates, rounding = "asymmetric", "floor"
    else:
        scales, sizes = node.optional_constant(2, "the scales"), node.optional_constant(3, "the sizes")
        coordinates = node.attr_str("coordinate_transformation_mode", "half_pixel")
        rounding = node.attr_str("nearest_mode", "round_prefer_floor")
    full_sizes, factors = list(x.shape), [1.0] * rank
    if sizes is not None and sizes.size:
        wanted = [int(s) for s in sizes.reshape(-1)]
        policy = node.attr_str("keep_aspect_ratio_policy", "stretch")
        ratios = [w / x.shape[a] for w, a in zip(wanted, axes, strict=True)]
        if policy != "stretch":
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            ratios = [ratio] * len(axes)
            # Rounded to the nearest, halves up.
            wanted = [math.floor(ratio * x.shape[a] + 0.5) for a in axes]
        for a, w, ratio in zip(axes, wanted, ratios, strict=True):
            full_sizes[a], factors[a] = w, ratio
    elif scales is not None and scales.size:
        for a, s in zip(axes, scales.reshape(-1), strict=True):
            factors[a] = float(np.float32(s))
            full_sizes[a] = math.floor(x.shape[a] * factors[a])
    else:
        raise node.fail("neither scales nor sizes are given")
    special = (
        node.attr_int("antialias", 0)
        or node.attr_int("exclude_outside", 0)
        # By scales, the output size in the formula is the exact product, not the one rounded down.
        or (
            coordinates == "align_corners"
            and any(f * d != o for f, d, o in zip(factors, x.shape, full_sizes, strict=True))
        )
        or coordinates in ("tf_crop_and_resize", "half_pixel_symmetric", "tf_half_pixel_for_nn")
    )
    if special:
        return _by_matrices(node, x, tuple(full_sizes), tuple(factors), axes)
    return _resize(node, x, tuple(full_sizes), tuple(factors), mode, coordinates, rounding)


def _resize(
    node: OnnxNode,
    x: Value,
    sizes: tuple[int, ...],
    factors: tuple[float, ...],
    mode: str,
    coordinates: str,
    rounding: str,
) -> Value:
    attrs: dict[str, Attribute] = {
        "sizes": sizes,
        "scales": factors,
        "mode": mode,
        "coordinates": coordinates,
        "rounding": rounding,
        "cubic_a": node.attr_float("cubic_coeff_a", -0.75),
    }
    return node.emit("resize", [x], attrs)


def _by_matrices(
    node: OnnxNode, x: Value, sizes: tuple[int, ...], factors: tuple[float, ...], axes: tuple[int, ...]
) -> Value:
    """Resampling as one matrix product a dimension, for the rarer options (antialias, exclude_outside, regions).

    Every mode is linear in the input and separable, so resampling the unit vectors gives the matrix.
    """
    dtype = x.dtype
    y = node.cast(x, DType.F32)
    rank = len(x.shape)
    outside = np.zeros((1,) * rank, np.bool_)
    roi = node.optional_constant(1, "the region") if node.opset >= 11 else None
    crop = node.attr_str("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    for position, axis in enumerate(axes):
        n = x.shape[axis]
        region = None
        if crop and roi is not None and roi.size:
            flat = roi.reshape(-1)
            region = np.asarray([0, flat[position], 1, flat[len(axes) + position]], np.float32)
        if not crop and sizes[axis] == n and factors[axis] == 1.0:
            continue
        matrix = _resample(node, np.eye(n, dtype=np.float32), sizes[axis], factors[axis], region, 0.0)
        if crop:
            # What lies outside the input takes the extrapolation value instead of 0.
            filled = _resample(node, np.zeros((1, n), np.float32), sizes[axis], factors[axis], region, 1.0)[0]
            outside = outside | (filled != 0).reshape([-1 if d == axis else 1 for d in range(rank)])
        last = (*(d for d in range(rank) if d != axis), axis)
        moved = node.emit("transpose", [y], {"perm": last})
        product = node.emit("matmul", [moved, node.const(matrix)])
        y = node.emit("transpose", [product], {"perm": tuple(last.index(d) for d in range(rank))})
    if outside.any():
        value = node.const(np.float32(node.attr_float("extrapolation_value", 0.0)))
        y = node.emit("where", [node.const(outside), value, y])
    return node.cast(y, dtype)


def _resample(
    node: OnnxNode, rows: np.ndarray, size: int, factor: float, region: np.ndarray | None, fill: float
) -> np.ndarray:
    """Each row resized to `size` by onnx's reference implementation, with the options of the node."""
    kept = ("antialias", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "mode", "nearest_mode")
    by_size = math.floor(rows.shape[1] * factor) != size or node.optional(3) is not None
    proto = helper.make_node("Resize", ["x", "roi", "" if by_size else "scales", "sizes" if by_size else ""], ["y"])
    proto.attribute.extend(node.attributes[name] for name in kept if name in node.attributes)
    proto.attribute.append(helper.make_attribute("extrapolation_value", fill))
    feeds = {
        "x": rows,
        "roi": np.zeros(0, np.float32) if region is None else region,
        "scales": np.asarray([1, factor], np.float32),
        "sizes": np.asarray([rows.shape[0], size], np.int64),
    }
    feeds = {k: v for k, v in feeds.items() if k in proto.input}
    model = helper.make_model(
        helper.make_graph(
            [proto],
            "rows",
            [
                helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
                for k, v in feeds.items()
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        ),
        opset_imports=[helper.make_opsetid("", max(node.opset, 18))],
    )
    (result,) = evaluate(model, feeds, node)
    return np.asarray(result, np.float32)
