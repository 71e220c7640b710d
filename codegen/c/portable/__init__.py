"""Kernels in portable C: every op that compiled models may hold, on every target."""

from qcomp.codegen.c.kernel import Kernel
from qcomp.codegen.c.portable.copies import COPIES
from qcomp.codegen.c.portable.products import PRODUCTS
from qcomp.codegen.c.portable.quantized import QUANTIZED

PORTABLE: tuple[Kernel, ...] = (*QUANTIZED, *PRODUCTS, *COPIES)
