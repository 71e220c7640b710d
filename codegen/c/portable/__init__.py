"""Kernels in portable C: every op that compiled models may hold, on every target."""

from qcomp.codegen.c.kernel import Kernel
from qcomp.codegen.c.portable.convolutions import CONVOLUTIONS
from qcomp.codegen.c.portable.copies import COPIES
from qcomp.codegen.c.portable.dynamic import DYNAMIC
from qcomp.codegen.c.portable.floats import FLOATS
from qcomp.codegen.c.portable.joint_products import JOINT_PRODUCTS
from qcomp.codegen.c.portable.movement import MOVEMENT
from qcomp.codegen.c.portable.pools import POOLS
from qcomp.codegen.c.portable.products import PRODUCTS
from qcomp.codegen.c.portable.qnormalize import NORMALIZATIONS
from qcomp.codegen.c.portable.quantized import QUANTIZED
from qcomp.codegen.c.portable.recurrent import RECURRENT
from qcomp.codegen.c.portable.reductions import REDUCTIONS

PORTABLE: tuple[Kernel, ...] = (
    *QUANTIZED, *PRODUCTS, *JOINT_PRODUCTS, *CONVOLUTIONS, *POOLS, *FLOATS, *MOVEMENT, *REDUCTIONS, *NORMALIZATIONS,
    *COPIES, *DYNAMIC, *RECURRENT,
)  # fmt: skip
