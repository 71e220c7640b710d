"""Recurrent layers: compiled code gives the bits of the interpreter, also for what is not finite."""

from __future__ import annotations

import numpy as np
import pytest
from codegen_harness import Cases, check

from qcomp.codegen.c.table import kernel_table
from qcomp.ir import DType, Value
from qcomp.runtime.features import cpu_features
from qcomp.targets import target as target_named

VECTORS = ("x86_64-avx2", "x86_64-avxvnni", "x86_64-avx512vnni", "x86_64-avx512vbmi", "x86_64-amx")
RUNNABLE = ("x86_64", "generic", *(name for name in VECTORS if target_named(name).features <= cpu_features()))
SIZES = ((1, 1, 1), (2, 1, 3), (3, 5, 7), (1, 3, 15), (4, 2, 16), (3, 1, 17), (2, 2, 33), (6, 1, 48), (2, 1, 65))
SPECIAL = np.float32([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, -0.0, 100, -100])


def layers(op: str, gates: int) -> Cases:
    """Layers of one kind with and without initial states, in both directions, on float and int8 weights."""
    cases = Cases(21)
    for index, (steps, batch, hidden) in enumerate(SIZES):
        for variant in range(8):
            x = cases.data((steps, batch, gates * hidden))
            if variant in (3, 6):
                x = np.where(cases.rng.random(x.shape) < 0.05, cases.rng.choice(SPECIAL, x.shape), x)
            states: list[Value | None] = [cases.input((batch, hidden)) if variant & 1 else None for _ in range(2)]
            integer = variant >= 4
            r = cases.data((gates * hidden, hidden), DType.I8 if integer else DType.F32, 0.5)
            scales = cases.constant(np.abs(cases.data((gates * hidden,))) * np.float32(0.01)) if integer else None
            attrs: dict[str, object] = {"reverse": bool((variant ^ index) & 2)}
            if integer and index % 2:
                attrs["state_scale"] = float(np.float32(1 / 127))
            if op == "gru":
                attrs["linear_before_reset"] = bool((variant + index) & 1)
                bias = cases.constant(cases.data((hidden,))) if attrs["linear_before_reset"] and variant & 2 else None
                states = [bias, states[0]]
            cases.op(op, [cases.input(x.shape, data=x), cases.constant(r), *states, scales], **attrs)
    return cases


@pytest.mark.parametrize(("op", "gates"), [("lstm", 4), ("gru", 3)])
@pytest.mark.parametrize("target", RUNNABLE)
def test_layers(op: str, gates: int, target: str) -> None:
    check(layers(op, gates), target, kernel_table(), threads=2)
