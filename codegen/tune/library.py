"""Kernels of many candidates in one library, and their operands: what times a candidate once."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcomp.codegen.c.emit import Symbols, is_unit, kernel_files
from qcomp.codegen.c.lower import Function
from qcomp.codegen.c.render import environment
from qcomp.codegen.plan.buffer import Buffer
from qcomp.codegen.toolchain import build_kernel_library, find_compiler
from qcomp.codegen.tune.candidates import Candidate, Layer
from qcomp.errors import QcompError
from qcomp.runtime.sources import HEADER
from qcomp.targets import Target

_TEMPLATES = Path(__file__).parent / "templates"
_PREFIX = "qcomp_tune"
_ALIGN = 4096
_SLACK = 64
#: More of the rest of the network than this many second level caches is not read before a layer's run.
_MOST_CACHES = 32
_USUAL_CACHE = 1 << 20

Array = np.ndarray


class KernelLibrary:
    """The candidates of all layers, compiled for a target, in this process."""

    def __init__(
        self, layers: Sequence[Sequence[Candidate]], target: Target, folder: Path, threads: int = 1,
        cc: str | None = None,
    ) -> None:  # fmt: skip
        functions: dict[Function, int] = {}
        self._places = [
            [functions.setdefault((c.code.text, c.code.helpers), len(functions)) for c in own] for own in layers
        ]
        symbols = Symbols(_PREFIX, f"{_PREFIX}_weights", f"{_PREFIX}_metadata")
        kernels = kernel_files(list(functions), symbols, "candidates", target.name)
        driver = environment(_TEMPLATES).get_template("driver.c.j2").render(prefix=_PREFIX, units=kernels.units)
        files = {**kernels.files, "driver.c": driver.encode(), HEADER.name: HEADER.read_bytes()}
        for name, content in files.items():
            (folder / name).write_bytes(content)
        units = [name for name in kernels.files if is_unit(name)]
        library = ctypes.CDLL(str(build_kernel_library(find_compiler(cc), target, folder, units, "driver.c")))
        if any(feature.startswith("amx") for feature in target.features) and library.qcomp_enable_amx():
            raise QcompError("the system does not let this process use AMX", fix="tune for another --target")
        self._home = kernels.home
        self._time = library.qcomp_tune_time
        self._time.restype = ctypes.c_uint64
        library.qcomp_pool_create.restype = ctypes.c_void_p
        self._pool = ctypes.c_void_p(library.qcomp_pool_create(threads)) if threads > 1 else None
        self._destroy = library.qcomp_pool_destroy

    def close(self) -> None:
        """Ends the threads; nothing may be timed afterwards."""
        if self._pool is not None:
            self._destroy(self._pool)
            self._pool = None

    def timer(self, layer: int, operands: Operands, others: Array) -> Callable[[int], float]:
        """A function that runs a candidate of the layer once, after `others` was read, for its nanoseconds."""
        newest, *older = operands.inputs
        touched = [*older, *operands.outputs, newest]  # a residual is older than the result of the layer before
        addresses = (ctypes.c_void_p * len(touched))(*(array.ctypes.data for array in touched))
        sizes = (ctypes.c_uint64 * len(touched))(*(array.nbytes for array in touched))
        places = [self._home[function] for function in self._places[layer]]

        def sample(candidate: int) -> float:
            unit, slot = places[candidate]
            tasks = -1 if operands.whole[candidate] and self._pool is None else operands.tasks[candidate]
            spent: int = self._time(
                unit, slot, operands.pointers[candidate], tasks, self._pool,
                ctypes.c_void_p(others.ctypes.data), ctypes.c_uint64(others.nbytes), addresses, sizes, len(touched),
            )  # fmt: skip
            return float(spent)

        return sample


@dataclass(frozen=True)
class Operands:
    """Memory of a layer's candidates: inputs and outputs, which they share, and each one's pointers and tasks, and
    whether it does all of them in one call."""

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    constants: tuple[Array, ...]
    pointers: tuple[ctypes.Array[ctypes.c_void_p], ...]
    tasks: tuple[int, ...]
    whole: tuple[bool, ...]


def operands_of(layer: Layer, candidates: Sequence[Candidate], seed: int = 0) -> Operands:
    """Random inputs, and every constant once: candidates that pack weights alike share them."""
    rng = np.random.default_rng(seed)
    inputs = tuple(_random(buffer, rng) for buffer in layer.inputs)
    outputs = tuple(aligned(np.zeros(buffer.bytes, np.uint8)) for buffer in layer.outputs)
    interiors = [
        array.ctypes.data + buffer.interior * buffer.dtype.numpy.itemsize
        for array, buffer in zip((*inputs, *outputs), (*layer.inputs, *layer.outputs), strict=True)
    ]
    stored: dict[bytes, Array] = {}
    pointers = []
    for candidate in candidates:
        own = [stored.setdefault(c.tobytes(), aligned(c)) for c in candidate.code.constants]
        addresses = [*interiors, *(array.ctypes.data for array in own)]
        pointers.append((ctypes.c_void_p * len(addresses))(*addresses))
    tasks = tuple(candidate.code.tasks for candidate in candidates)
    whole = tuple(candidate.code.whole for candidate in candidates)
    return Operands(inputs, outputs, tuple(stored.values()), tuple(pointers), tasks, whole)


def _random(buffer: Buffer, rng: np.random.Generator) -> Array:
    if buffer.dtype.is_float:
        return aligned(rng.standard_normal(buffer.elements).astype(buffer.dtype.numpy).view(np.uint8))
    return aligned(rng.integers(0, 256, buffer.bytes, np.uint8))


def aligned(values: Array) -> Array:
    """The bytes of an array at the start of a page, followed by bytes that may be read."""
    raw = np.zeros(values.nbytes + _SLACK + _ALIGN, np.uint8)
    start = -raw.ctypes.data % _ALIGN
    view = raw[start : start + values.nbytes]
    view[...] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return view


def others_of(layer: Layer, candidates: Sequence[Candidate], network_bytes: int, target: Target) -> Array:
    """Stands for what the network touches between two runs of the layer: its other weights and activations."""
    own = sum(buffer.bytes for buffer in (*layer.inputs, *layer.outputs))
    own += sum(constant.nbytes for constant in candidates[0].code.constants)
    most = _MOST_CACHES * target.caches.get("l2", _USUAL_CACHE)
    return np.ones(max(0, min(network_bytes - own, most)), np.uint8)
