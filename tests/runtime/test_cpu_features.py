from __future__ import annotations

import sys

import pytest

from qcomp.runtime.features import cpu_features, machine, parse_cpuinfo


def test_x86_names_are_normalized() -> None:
    lines = ["processor\t: 0\n", "vendor_id\t: GenuineIntel\n",
             "flags\t\t: fpu sse2 pni avx2 fma avx512f avx512_vnni avx_vnni amx_int8 amx_tile lahf_lm\n",
             "flags\t\t: gfni\n"]  # fmt: skip
    assert parse_cpuinfo(lines) == {
        "sse2", "sse3", "avx2", "fma", "avx512f", "avx512vnni", "avxvnni", "amx_int8", "amx_tile",
    }  # fmt: skip


def test_arm_names_are_normalized() -> None:
    assert parse_cpuinfo(["Features\t: fp asimd aes asimddp i8mm\n"]) == {"neon", "dotprod", "i8mm"}


def test_silence_claims_nothing() -> None:
    assert parse_cpuinfo(["processor : 0\n"]) == frozenset()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_this_machine_has_its_baseline() -> None:
    assert {"x86_64": "sse2", "aarch64": "neon"}[machine()] in cpu_features()
