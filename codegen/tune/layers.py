"""Layers as tuning files name them: what decides how fast a node is computed, without its weights."""

from __future__ import annotations

from qcomp.codegen.c.kernel import Kernel, KernelTable
from qcomp.codegen.plan import Step
from qcomp.codegen.plan.buffer import Buffer
from qcomp.ir import Node
from qcomp.ir.registry import REQUIRED, Attr, Attribute
from qcomp.targets import Target

_BOUNDS = frozenset({"lo", "hi"})


def is_tunable(node: Node, target: Target, table: KernelTable) -> bool:
    """Whether there is a choice of kernels or schedules for the node."""
    found = table.alternatives(node, target)
    several = len(found) > 1 and any(kernel.standalone for kernel in found)
    return several or any(kernel.scheduled for kernel in found)


def layer_name(step: Step, kernel: Kernel) -> str:
    """Op, types, padding around buffers and attributes of a step; `kernel` is the one that it gets by default.

    `qconv2d x=i8[1,56,56,64]+1,1,1,1 w=i8[64,3,3,64] y=i8[1,56,56,64] pads=1,1,1,1 form=vnni`
    """
    node = step.node
    buffers = iter(operand.buffer for operand in step.inputs)
    words = [node.op.name]
    for name, value in zip(node.op.operands, node.inputs, strict=False):
        if value is None:
            continue
        if not value.is_constant:
            words.append(f"{name.rstrip('?')}={_buffer(next(buffers))}")
        elif len(value.shape) > 1:
            words.append(f"{name}={_buffer(Buffer(value.dtype, value.shape))}")
        elif name.endswith("?"):
            words.append(name.rstrip("?"))
    words += [f"y={_buffer(operand.buffer)}" for operand in step.outputs]
    for name, attribute in sorted(node.attrs.items()):
        known = node.op.attributes[name]
        if not _is_number(name, known) and (known.default is REQUIRED or attribute != known.default):
            words.append(f"{name}={_attribute(attribute)}")
    form = kernel.form(node)
    return " ".join([*words, f"form={form.replace(' ', '-')}"] if form else words)


def _is_number(name: str, known: Attr) -> bool:
    """Whether an attribute changes numbers at most, not what is done with them; result types are named with the
    result."""
    return known.kind in ("float", "dtype") or known.note or name in _BOUNDS or name.endswith("zp")


def _buffer(buffer: Buffer) -> str:
    halo = "" if buffer.dense else "+" + ",".join(map(str, buffer.halo))
    return f"{buffer.dtype.value}[{','.join(map(str, buffer.shape))}]{halo}"


def _attribute(value: Attribute) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
