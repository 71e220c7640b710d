"""The software model of the AMX instructions computes what the manual says, and stops at what the processor refuses."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from x86_harness import AMX_MODEL, compiler

from qcomp.codegen.c.x86.amx import tile_config
from qcomp.codegen.c.x86.amx_tiling import Depth

PROGRAM = """
extern int atoi(const char*);
static uint8_t config[64] __attribute__((aligned(64)));
static uint8_t data[4096];
static int32_t sums[256];
#define CONFIG(...) { const uint8_t c[64] = { __VA_ARGS__ }; for (int i = 0; i < 64; i++) config[i] = c[i]; }
int main(int n, char** arguments) {
  CONFIG(GOOD)
  for (int i = 0; i < 4096; i++) data[i] = (uint8_t)(i * 37 + i / 64);
  switch (n > 1 ? atoi(arguments[1]) : -1) {
CASES
  }
  return 0;
}
"""
START = "_tile_loadconfig(config);"
#: What goes wrong, and the message.
WRONG = {
    "_tile_loadd(0, data, 64);": "without a configuration",
    f"{START} _tile_release(); _tile_dpbusd(0, 4, 6);": "without a configuration",
    f"{START} _tile_release(); _tile_release();": "released twice",
    f"config[0] = 2; {START}": "palette",
    f"config[1] = 1; {START}": "start_row",
    f"config[15] = 1; {START}": "reserved byte",
    f"config[40] = 4; {START}": "above 7 has columns",
    f"config[60] = 4; {START}": "above 7 has rows",
    f"config[16] = 62; {START}": "whole dwords",
    f"config[17] = 1; {START}": "whole dwords",
    f"config[48] = 17; {START}": "more than 16 rows",
    f"config[48] = 0; {START}": "columns without rows",
    f"config[48] = config[16] = 0; {START} _tile_loadd(0, data, 64);": "leaves out",
    f"config[48] = config[16] = 0; {START} _tile_dpbusd(0, 4, 6);": "leaves out",
    f"config[54] = config[28] = 0; {START} _tile_dpbusd(0, 4, 6);": "leaves out",
    f"{START} _tile_dpbusd(0, 0, 6);": "one tile twice",
    f"{START} _tile_dpbusd(0, 4, 4);": "one tile twice",
    f"config[48]--; {START} _tile_dpbusd(0, 4, 6);": "differ in rows",
    f"config[16] -= 4; {START} _tile_dpbusd(0, 4, 6);": "differ in columns",
    f"config[24] -= 4; {START} _tile_dpbusd(0, 4, 6);": "are not rows of the second",
    f"config[48] = config[16] = 0; {START} _tile_stored(0, sums, 64);": "leaves out",
}
RIGHT = f"""{START} _tile_loadd(0, data, 64); _tile_loadd(4, data + 1000, 48); _tile_loadd(6, data + 2000, 64);
  _tile_dpbusd(0, 4, 6); _tile_stored(0, sums, 64); for (int i = 0; i < 256; i++) printf("%d ", sums[i]);"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    cases = [RIGHT, *WRONG]
    text = PROGRAM.replace("GOOD", ", ".join(map(str, tile_config(13, Depth(1, 1, 40)))))
    text = text.replace("CASES", "\n".join(f"    case {i}: {case} break;" for i, case in enumerate(cases)))
    (folder / "model.c").write_text(text)
    compiler("-include", str(AMX_MODEL), "-fno-sanitize=all", str(folder / "model.c"), "-o", str(folder / "model"))
    return folder / "model"


def test_products_are_those_of_the_manual(program: Path) -> None:
    data = np.array([(i * 37 + i // 64) % 256 for i in range(4096)], np.uint8)
    sums = data[: 13 * 64].view(np.int32).reshape(13, 16).astype(np.int64)
    pixels = np.stack([data[1000 + 48 * m : 1000 + 48 * m + 40] for m in range(13)]).astype(np.int64)
    weights = data[2000 : 2000 + 10 * 64].view(np.int8).reshape(10, 16, 4).transpose(0, 2, 1).reshape(40, 16)
    expected = (sums + pixels @ weights.astype(np.int64)) % 2**32
    done = subprocess.run([program, "0"], capture_output=True, text=True, check=True)
    found = np.array(done.stdout.split(), np.int64)
    assert np.array_equal(found[: 13 * 16] % 2**32, expected.reshape(-1))
    assert not found[13 * 16 :].any()  # rows that the configuration leaves out are not stored


@pytest.mark.parametrize(("case", "message"), list(enumerate(WRONG.values(), 1)), ids=range(len(WRONG)))
def test_what_the_processor_refuses_ends_the_process(program: Path, case: int, message: str) -> None:
    done = subprocess.run([program, str(case)], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and done.stdout.startswith("AMX model: ")
    assert message in done.stdout
