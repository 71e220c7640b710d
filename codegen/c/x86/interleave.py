"""Planar images of few channels to interleaved bytes: transpose(0, 2, 3, 1), alone or with quantize in one pass."""

from __future__ import annotations

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.x86.elementwise import Scalars, scalars_helper
from qcomp.codegen.c.x86.isa import AVX512, Isa
from qcomp.codegen.c.x86.render import render
from qcomp.codegen.plan.buffer import Buffer

_TASK_ELEMENTS = 16 * 1024

# How 16 pixels, one a dword, become bytes, for each number of channels.
_STORES: dict[int, str] = {
    1: f"{AVX512.store_narrowed('y', 'd', '(__mmask16)bytes')};",
    2: "_mm256_mask_storeu_epi8(y, (__mmask32)bytes, _mm512_cvtepi32_epi16(d));",
    3: "_mm512_mask_storeu_epi8(y, bytes, _mm512_permutexvar_epi32(join, _mm512_shuffle_epi8(d, squeeze)));",
    4: "_mm512_mask_storeu_epi8(y, bytes, d);",
}
MAX_CHANNELS = max(_STORES)


def _row512(channels: int) -> dict[str, object]:
    return {"full": hex((1 << 16 * channels) - 1), "store": _STORES[channels]}


def _row256(isa: Isa, channels: int) -> dict[str, object]:
    """8 pixels: bytes are brought together in each lane of 128 bits, then the lanes' dwords are joined."""
    squeeze = [4 * pixel + c for pixel in range(4) for c in range(channels)]
    join = [*range(channels), *range(4, 4 + channels)]
    return {
        "squeeze": squeeze + [-1] * (16 - len(squeeze)),
        "join": join + [i for i in range(8) if i not in join],
        "stores": isa.store_three("y", False) if channels == 3 else (isa.store_part("y", 0, 4 // channels, False),),
    }


def interleave_code(x: Buffer, y: Buffer, isa: Isa, symbol: str) -> KernelCode:
    """C of transpose(0, 2, 3, 1) of stored u8: x [N, C, H, W], y [N, H, W, C] with any halo, C at most MAX_CHANNELS."""
    return _code(x, y, isa, symbol, None)


def quantize_nchw_code(x: Buffer, y: Buffer, scale: float, zp: int, isa: Isa, symbol: str) -> KernelCode:
    """C of quantize and transpose(0, 2, 3, 1): x f32 [N, C, H, W], y u8 [N, H, W, C] with any halo.

    C is at most MAX_CHANNELS; scale is a float32 value, zp the stored zero point."""
    return _code(x, y, isa, symbol, Scalars(a_mult=scale, zp=zp))


def _code(x: Buffer, y: Buffer, isa: Isa, symbol: str, scalars: Scalars | None) -> KernelCode:
    batch, height, width, channels = y.shape
    ctype = "uint8_t" if scalars is None else "float"
    name = f"qc_x86_{'interleave' if scalars is None else 'quantize_nchw'}{channels}"
    row = render(
        f"row_interleave_{isa.bits}.c.j2",
        V=isa,
        name=name,
        note="Bytes of" if scalars is None else "Quantizes",
        ctype=ctype,
        quantizes=scalars is not None,
        channels=channels,
        **(_row512(channels) if isa.bits == 512 else _row256(isa, channels)),
    )
    # Narrow dense images are walked as one line each.
    merged = x.dense and y.dense and width < 64
    rows, length = (batch, height * width) if merged else (batch * height, width)
    wanted = max(1, min(16, rows, batch * height * width * channels // _TASK_ELEMENTS))
    rows_per_task = -(-rows // wanted)
    text = render(
        "interleave.c.j2",
        symbol=symbol,
        function=name,
        ctype=ctype,
        rows=rows,
        rows_per_task=rows_per_task,
        per_image=rows // batch,
        length=length,
        plane=x.strides[1],
        x_image=x.strides[0],
        x_row=x.strides[2],
        y_image=y.strides[0],
        y_row=y.strides[1],
        **(scalars or Scalars()).values(),
    )
    kernel = f"{isa.name} {'interleave' if scalars is None else 'quantize nchw'}"
    return KernelCode((*scalars_helper(isa), CFunction(name, row)), text, -(-rows // rows_per_task), (), kernel)
