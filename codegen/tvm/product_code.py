"""Code of layers of products: functions, packed constants and the C that calls them."""

from __future__ import annotations

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.render import float_literal
from qcomp.codegen.c.vector.runs import tap_offsets
from qcomp.codegen.tvm.functions import compiled
from qcomp.codegen.tvm.intrinsics.tiles import tile_config
from qcomp.codegen.tvm.layers import Layer, forms_of, schedules_of
from qcomp.codegen.tvm.packing import packed
from qcomp.codegen.tvm.products import Products, scheduled
from qcomp.codegen.tvm.render import ctype, render
from qcomp.codegen.tvm.tasks import Grid, Kind, grid_of
from qcomp.codegen.tvm.tiling import Part, Tiling, parse_tiling
from qcomp.errors import QcompError
from qcomp.targets import Target


def layer_code(layer: Layer, target: Target, symbol: str, schedule: str, exact: bool) -> KernelCode | None:
    """C and assembler of the layer; exact: nothing may be read past the end of x. None where no form can do with that.

    Raises QcompError for a schedule that the layer does not have."""
    tiling = _chosen(layer, target, schedule, exact)
    if tiling is None:
        return None
    grid = grid_of(layer, tiling)
    functions: dict[str, CFunction] = {}
    calls = [
        [_call(layer, tiling, grid, part, kind, functions, target) for part in tiling.parts(grid.lines.length)]
        for kind in grid.kinds
    ]
    weights, bias, mult = packed(layer, tiling)
    constants = [weights, bias, mult]
    if layer.ending.table is not None:
        constants.append(layer.ending.table)
    text = _text(layer, tiling, grid, calls, symbol)
    return KernelCode(tuple(functions.values()), text, grid.count, tuple(constants), f"tvm {tiling.text}")


def _chosen(layer: Layer, target: Target, schedule: str, exact: bool) -> Tiling | None:
    if not schedule:
        fitting = (t for t in schedules_of(layer, target) if not (exact and layer.over(t.form)))
        return next(fitting, None)
    tiling = parse_tiling(schedule)
    if tiling.form not in forms_of(layer, target) or (exact and layer.over(tiling.form)):
        raise QcompError(f"schedule {schedule!r} is not for this layer", fix="run `qcomp tune` again")
    return tiling


def _call(
    layer: Layer, tiling: Tiling, grid: Grid, part: Part, kind: Kind, functions: dict[str, CFunction], target: Target
) -> dict[str, object]:  # fmt: skip
    """A call for pixels of all lines of a task; its function joins those that are needed."""
    shape, lines, ending, form = layer.shape, grid.lines, layer.ending, tiling.form
    residual = ending.residual
    x_pixel, y_pixel = shape.x_step, shape.y.channels
    (dh, dw), x = shape.dilations, shape.x
    spec = Products(
        form, grid.together, part.tiles, part.rows, part.joined, layer.taps, layer.depth,
        (lines.x_row, dh * x.row_stride, dw * x.channels, x_pixel), kind.blocks, kind.vectors, kind.channels,
        (lines.y_row, y_pixel), None if residual is None else (lines.residual_row(residual), y_pixel),
        ending.dtype, ending.table is not None,
    )  # fmt: skip
    function = compiled(spec, scheduled, target, len(spec.parameters), residual is not None)
    functions.setdefault(function.name, function)
    moved = {"x": part.first * x_pixel, "r": part.first * y_pixel, "y": part.first * y_pixel}
    arguments = [f"{n} + {moved[n]}" if moved.get(n) else n for n in spec.parameters]
    config = part.rows // part.joined if form.tiled else 0
    return {"name": function.name, "arguments": arguments, "config": config}


def _text(
    layer: Layer, tiling: Tiling, grid: Grid, calls: list[list[dict[str, object]]], symbol: str
) -> str:  # fmt: skip
    shape, ending, lines, form = layer.shape, layer.ending, grid.lines, tiling.form
    residual = ending.residual
    names = [*(("r",) if residual is not None else ()), "y", "w", "bias", "mult", "table"]
    reals = ending.lo - ending.zp, ending.hi - ending.zp, residual.mult if residual else 0
    configs = dict.fromkeys(call["config"] for kind in calls for call in kind if call["config"])
    return render(
        "products.c.j2", symbol=symbol, shares=grid.shares, kinds=calls, lines=grid.together,
        per_image=-(-lines.per_image // grid.together), slots={name: i + 1 for i, name in enumerate(names)},
        reals=[float_literal(real) for real in reals],
        integers=[ending.zp, residual.zp if residual else 0],
        x_image=lines.x_image, x_line=lines.x_row, x_offset=tap_offsets(shape)[0],
        y_image=lines.y_image, y_line=lines.y_row, residual=residual is not None,
        r_image=residual.plane.image_stride if residual else 0, r_line=lines.residual_row(residual),
        stored=ctype(form.dtype), ctype=ctype(ending.dtype), weight=ctype(form.weights),
        table=ending.table is not None,
        configs=[(rows, tile_config(rows)) for rows in configs if isinstance(rows, int)],
    )  # fmt: skip
