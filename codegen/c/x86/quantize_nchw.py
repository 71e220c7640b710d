"""quantize of a planar float image straight into interleaved bytes: quantize and transpose in one pass."""

from __future__ import annotations

from qcomp.codegen.c.kernel import CFunction, KernelCode
from qcomp.codegen.c.x86.elementwise import SCALARS, Scalars
from qcomp.codegen.c.x86.render import render
from qcomp.codegen.plan.buffer import Buffer

_ROWS_PER_TASK_BYTES = 32 * 1024

# How 16 pixels, one a dword, become bytes.
_STORES: dict[int, str] = {
    1: "_mm_mask_storeu_epi8(y, (__mmask16)bytes, _mm512_cvtepi32_epi8(d));",
    2: "_mm256_mask_storeu_epi8(y, (__mmask32)bytes, _mm512_cvtepi32_epi16(d));",
    3: "_mm512_mask_storeu_epi8(y, bytes, _mm512_permutexvar_epi32(join, _mm512_shuffle_epi8(d, squeeze)));",
    4: "_mm512_mask_storeu_epi8(y, bytes, d);",
}
MAX_CHANNELS = max(_STORES)


def quantize_nchw_code(x: Buffer, y: Buffer, scale: float, zp: int, symbol: str) -> KernelCode:
    """C of transpose(0, 2, 3, 1) and quantize: x f32 [N, C, H, W] dense, y u8 [N, H, W, C] with any halo.

    C is at most MAX_CHANNELS; scale is a float32 value, zp the stored zero point."""
    batch, height, width, channels = y.shape
    name = f"qc_x86_quantize_nchw{channels}"
    full = (1 << 16 * channels) - 1
    row = render("row_quantize_nchw.c.j2", name=name, channels=channels, full=hex(full), store=_STORES[channels])
    flat = y.dense
    rows, length = (batch, height * width) if flat else (batch * height, width)
    if flat and width >= 16:
        rows, length = batch * height, width
    tasks = max(1, min(16, rows, batch * height * width * channels * 4 // _ROWS_PER_TASK_BYTES))
    rows_per_task = -(-rows // tasks)
    text = render(
        "quantize_nchw.c.j2",
        symbol=symbol,
        function=name,
        rows=rows,
        rows_per_task=rows_per_task,
        per_image=rows // batch,
        length=length,
        plane=height * width,
        x_image=channels * height * width,
        y_image=height * width * channels if flat else y.image_stride,
        y_row=length * channels if flat else y.row_stride,
        **Scalars(a_mult=scale, zp=zp).values(),
    )
    return KernelCode((SCALARS, CFunction(name, row)), text, -(-rows // rows_per_task), (), "avx512 quantize nchw")
