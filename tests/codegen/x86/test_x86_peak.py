"""The loop that measures a core's peak: it holds as many products as it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from x86_harness import CPUS, HERE, TILE_CPUS, compiler

from qcomp.codegen.c.x86.isa import AVX2, AVX2_PAIRS, ISAS, Isa
from qcomp.codegen.c.x86.peak import measured_peak, peak_source, products, tile_peak_source
from qcomp.errors import QcompError
from qcomp.runtime.features import cpu_features
from qcomp.targets import target


@pytest.mark.parametrize("isa", [*ISAS, AVX2_PAIRS], ids=lambda i: i.name + i.variant + "_vbmi" * i.vbmi)
def test_no_product_is_taken_out_of_the_loop(isa: Isa, tmp_path: Path) -> None:
    source, output = tmp_path / "peak.c", tmp_path / "peak.s"
    source.write_text(peak_source(isa))
    cpu = CPUS[AVX2 if isa is AVX2_PAIRS else isa]
    compiler(cpu, "-S", "-fno-unroll-loops", "-Wno-unused-command-line-argument", str(source), "-o", str(output))
    text = output.read_text()
    counted = [text.count(name) for name in ("vpdpbusd", "vpmaddwd", "vpmaddubsw")]
    assert max(counted) % products(isa) == 0 and max(counted) > 0
    assert "(%rsp)" not in text


def test_no_product_of_tiles_is_taken_out_of_the_loop(tmp_path: Path) -> None:
    source, output = tmp_path / "peak.c", tmp_path / "peak.s"
    source.write_text(tile_peak_source())
    compiler(
        *TILE_CPUS["machine"], "-S", "-fno-unroll-loops", "-Wno-unused-command-line-argument", str(source),
        "-o", str(output),
    )  # fmt: skip
    text = output.read_text()
    assert [text.count(name) for name in ("tdpbusd", "ldtilecfg", "tilerelease")] == [4, 1, 1]


@pytest.mark.skipif("amx_int8" in cpu_features(), reason="this machine has AMX")
def test_a_system_without_amx_refuses_its_registers() -> None:
    with pytest.raises(QcompError, match="the system refuses the AMX registers"):
        measured_peak(target("x86_64-amx"))


@pytest.mark.skipif(AVX2 not in HERE, reason="needs AVX2")
def test_a_peak_is_measured_where_there_are_vector_kernels() -> None:
    peak = measured_peak(target("x86_64-avx2"))
    assert peak is not None and 1 < peak < 100_000
    assert measured_peak(target("x86_64")) is None
