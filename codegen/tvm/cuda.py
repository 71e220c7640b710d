"""CUDA C of the same computes: a kernel for each function, a thread for each of its results.

No GPU is needed to make the text, and NVRTC or nvcc to compile it. Products are of signed bytes, as `SIGNED` says."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qcomp.codegen.tvm.adapter import lowered_kernel, restrided, tvm
from qcomp.codegen.tvm.elementwise import Lookup, Pair, Windows, looked_up_lines, pooled, total
from qcomp.codegen.tvm.forms import Form
from qcomp.codegen.tvm.products import Products, computed
from qcomp.errors import QcompError

#: Products of signed bytes, four a step.
SIGNED = Form("signed", 4, 4, "int8", (), 1, 1.0, 1.0)
_THREADS = 128
_COMPUTES: dict[type, Callable[[Any, str], Any]] = {
    Products: computed, Windows: pooled, Pair: total, Lookup: looked_up_lines,
}  # fmt: skip
_PARAMETER = re.compile(r"(\w+?)(?:_ptr)?\s*(?:,|$)")


@dataclass(frozen=True)
class CudaKernel:
    """`source` defines `extern "C" __global__ void NAME(T* ...)`, whose pointers are to `parameters` in that order; to
    be launched with `blocks` blocks of `threads` threads."""

    name: str
    source: str
    parameters: tuple[str, ...]
    blocks: int
    threads: int


def cuda_kernel(spec: Products | Windows | Pair | Lookup, name: str, arch: str = "sm_75") -> CudaKernel:
    """The kernel of a function, for GPUs from `arch` on.

    Raises QcompError for products that are not of signed bytes."""
    if isinstance(spec, Products) and (spec.form.dtype != "int8" or spec.form.tiled or spec.form.depthwise):
        raise QcompError(f"the form {spec.form.name} is not for CUDA", where=name, fix="use cuda.SIGNED")
    func, layouts = _COMPUTES[type(spec)](spec, "cuda")
    schedule = tvm().s_tir.Schedule(func)
    y = schedule.get_sblock("y")
    *spatial, last = [loop for loop in schedule.get_loops(y)][: 3 if isinstance(spec, Products | Windows) else 2]
    block, thread = schedule.split(schedule.fuse(*spatial, last), [None, _THREADS])
    schedule.bind(block, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")
    if isinstance(spec, Products) or (isinstance(spec, Windows) and spec.average):
        acc = schedule.get_sblock("acc")
        schedule.compute_at(acc, thread)
        schedule.set_scope(acc, 0, "local")
    blocks = int(schedule.get(block).extent)
    source = lowered_kernel(restrided(schedule.mod["main"], layouts), name, arch)
    signature = source[source.rindex(f"{name}(") + len(name) + 1 :]
    parameters = tuple(_PARAMETER.findall(signature[: signature.index(")")]))
    return CudaKernel(name, source, parameters, blocks, _THREADS)
