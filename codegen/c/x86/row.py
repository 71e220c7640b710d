"""What all x86 vector rows of the kernel table share."""

from __future__ import annotations

from qcomp.codegen.c.kernel import Kernel
from qcomp.codegen.c.x86.isa import Isa
from qcomp.ir import Node
from qcomp.targets.loader import Target

#: What a stored activation exceeds its logical value by.
OFFSET = 128


class X86Kernel(Kernel):
    """A row for one instruction set; activations are stored unsigned."""

    kind: str

    def __init__(self, isa: Isa) -> None:
        self.isa = isa
        self.name = f"{isa.name}_{self.kind}"
        self.family = isa.name
        self.requires = isa.features

    def supports(self, node: Node, target: Target) -> bool:
        return target.activation_storage == "u8" and self.fits(node)

    def fits(self, node: Node) -> bool:
        raise NotImplementedError
