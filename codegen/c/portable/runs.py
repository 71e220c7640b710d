"""Short runs of bytes, moved by assignments of structures: compilers turn those into a few vector moves, which they do
not do for a loop of some iterations inside another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qcomp.codegen.c.kernel import CFunction
from qcomp.codegen.c.portable.code import Source

#: Sizes of the structures; larger ones may become calls of memcpy, which generated code must do without.
_SIZES = (64, 32, 16, 8, 4, 2, 1)
_LONGEST = 512
_MAY_ALIAS = CFunction(
    "QCOMP_MAY_ALIAS",
    """\
/* A type that may name memory of any other. */
#if defined(__GNUC__)
#define QCOMP_MAY_ALIAS __attribute__((may_alias))
#else
#define QCOMP_MAY_ALIAS
#endif""",
)


@dataclass(frozen=True)
class Run:
    """A run of `bytes` bytes that a copy moves without change."""

    bytes: int

    def lines(self, to: str, start: str) -> list[str]:
        """C statements; `to` and `start` are pointers."""
        found, at = [], 0
        for size in _SIZES:
            while self.bytes - at >= size:
                found.append(
                    f"*(q_run{size}*)(void*)((uint8_t*)({to}) + {at}) = "
                    f"*(const q_run{size}*)(const void*)((const uint8_t*)({start}) + {at});"
                )
                at += size
        return found

    @property
    def sizes(self) -> Iterable[int]:
        rest = self.bytes
        for size in _SIZES:
            if rest >= size:
                yield size
                rest %= size


def run_of(source: Source, result: Source, elements: int) -> Run | None:
    """The run that copies `elements` neighbours; None where they are converted, or too many to be written out."""
    size = result.dtype.numpy.itemsize * elements
    return Run(size) if source.shift == result.shift and 4 <= size <= _LONGEST else None


def run_helpers(runs: Sequence[Run]) -> tuple[CFunction, ...]:
    """Types that the statements of the runs use."""
    used = {size for run in runs for size in run.sizes}
    types = (
        CFunction(f"q_run{size}", f"typedef struct {{ uint8_t bytes[{size}]; }} QCOMP_MAY_ALIAS q_run{size};")
        for size in sorted(used)
    )
    return (_MAY_ALIAS, *types) if used else ()
