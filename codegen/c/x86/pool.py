"""max_pool and qavg_pool on stored u8: windows read the halo, a vector of channels a step."""

from __future__ import annotations

import numpy as np

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.vector.shapes import ConvShape, Float32, Requantization
from qcomp.codegen.c.x86.conv import clamp_values
from qcomp.codegen.c.x86.epilogue import Epilogue, Group
from qcomp.codegen.c.x86.isa import Isa
from qcomp.codegen.c.x86.render import render

_TASK_BYTES = 64 * 1024


def _geometry(shape: ConvShape, line_blocks: int) -> dict[str, object]:
    lines = shape.y.batch * shape.y.height
    return {
        "lines": lines,
        "line_blocks": line_blocks,
        "lines_per_block": -(-lines // line_blocks),
        "lines_per_image": shape.y.height,
        "channels": shape.x.channels,
        "pixels": shape.y.width,
        "x_image": shape.x.image_stride,
        "x_row": shape.strides[0] * shape.x.row_stride,
        "y_image": shape.y.image_stride,
        "y_row": shape.y.row_stride,
        "origin": shape.pads[0] * shape.x.row_stride + shape.pads[1] * shape.x.channels,
        "rs": shape.dilations[0] * shape.x.row_stride,
        "c": shape.dilations[1] * shape.x.channels,
        "xs": shape.strides[1] * shape.x.channels,
        "kh": shape.kernel[0],
        "kw": shape.kernel[1],
    }


def _line_blocks(shape: ConvShape) -> int:
    """Blocks of lines, each of some tens of kilobytes of taps."""
    lines = shape.y.batch * shape.y.height
    taps = lines * shape.y.width * shape.x.channels * shape.kernel[0] * shape.kernel[1]
    per_block = -(-lines // max(1, min(32, lines, taps // _TASK_BYTES)))
    return -(-lines // per_block)


def max_pool_code(shape: ConvShape, isa: Isa, symbol: str) -> KernelCode:
    """C of max_pool; the halo of x holds stored 0, so that padding never wins."""
    helper = CFunction("qc_x86_max_pool", render("max_pool.c.j2", V=isa))
    blocks = _line_blocks(shape)
    text = render("pool.c.j2", symbol=symbol, average=False, function=helper.name, **_geometry(shape, blocks))
    return KernelCode((*isa.helpers, helper), text, blocks, (), f"{isa.name} max_pool")


def avg_pool_code(
    shape: ConvShape, mult: Float32, requantization: Requantization, isa: Isa, symbol: str
) -> KernelCode:
    """C of qavg_pool; mult: float32 [OH, OW], one multiplier for each output position.

    The halo of x holds the zero point, so that padding adds nothing."""
    area = shape.kernel[0] * shape.kernel[1]
    guard = bool(255.0 * area * float(np.abs(mult).max()) >= 2.0**30)
    varies = bool(np.any(mult != mult.flat[0]))
    epilogue = Epilogue(isa.for_ones, "u8", guard=guard, clamped=requantization.clamped)
    name = f"qc_x86_avg_pool_{epilogue.suffix}"
    stores = (
        f"if (channels - o >= {isa.bytes}) {isa.store('y + o', 'p')};",
        f"else {isa.store_first('y + o', 'p', 'channels - o')};",
    )
    group = Group(tuple((0, v) for v in range(4)), (0, 1, 2, 3), stores)
    function = CFunction(name, render("avg_pool.c.j2", name=name, index=(), group=group, **epilogue.template_values))
    blocks = _line_blocks(shape)
    chunks = -(-shape.x.channels // isa.bytes)
    taps = shape.y.batch * shape.y.height * shape.y.width * shape.x.channels * area
    splits = max(1, min(chunks, -(-min(32, taps // _TASK_BYTES) // blocks)))
    channels_per_block = -(-chunks // splits) * isa.bytes
    splits = -(-shape.x.channels // channels_per_block)
    text = render(
        "pool.c.j2",
        symbol=symbol,
        average=True,
        function=name,
        start=-requantization.x_zp * area,
        varies=varies,
        channels_per_block=channels_per_block,
        **_geometry(shape, blocks),
        **clamp_values(requantization),
    )
    constants = (np.ascontiguousarray(mult if varies else mult.reshape(-1)[:1]),)
    return KernelCode((*epilogue.helpers, function), text, blocks * splits, constants, f"{isa.name} avg_pool")
