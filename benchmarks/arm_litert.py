"""Executed instructions for each multiply-accumulate of LiteRT (XNNPACK) on ARM, counted as arm_instructions.py does.

    python benchmarks/arm_litert.py --root ROOT --site SITE

ROOT holds a Python 3.11 for ARM, unpacked from Debian's packages (`dpkg --add-architecture arm64`, `apt-get download
python3.11-minimal:arm64 libpython3.11-minimal:arm64 libpython3.11-stdlib:arm64 libc6:arm64 libstdc++6:arm64
libgcc-s1:arm64 zlib1g:arm64 libexpat1:arm64 libffi8:arm64`, and `dpkg-deb -x` of each); SITE has the ARM wheels of
ai-edge-litert and numpy unpacked (`pip download --platform manylinux_2_27_aarch64 --no-deps ...`).  The networks are
those of compare.py, quantized by Google's own quantizer (extra `bench`).  LiteRT's library of CPU features reads
/proc/cpuinfo and ends where that is of another machine, so ROOT gets one of an ARM CPU.

Threads and dictionaries make counts of one run differ by some million, so many runs are counted.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

from arm_instructions import plugin
from litert import litert_files
from rich.console import Console
from rich.table import Table

import qcomp
import qcomp.zoo

CPUS = {"aarch64-dotprod": "neoverse-n1", "aarch64-i8mm": "max"}
MODELS = ("resnet8_32", "dscnn_49x10", "mobilenet_v2")
#: Multiply-accumulates that are counted in all.
_COUNTED = 5_000_000_000
_PROCESSOR = """\
processor\t: {index}
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

"""
_PROGRAM = """\
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
model = Interpreter(sys.argv[1], num_threads=1)
model.allocate_tensors()
given = model.get_input_details()[0]
model.set_tensor(given["index"], np.zeros(given["shape"], given["dtype"]))
for _ in range(int(sys.argv[2])):
    model.invoke()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Executed instructions of LiteRT for ARM, counted in qemu.")
    parser.add_argument("--root", type=Path, required=True, help="folder with a Python 3.11 for 64-bit ARM")
    parser.add_argument("--site", type=Path, required=True, help="folder with LiteRT's and numpy's wheels for ARM")
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME", help="cases of the zoo")
    arguments = parser.parse_args()
    processors = arguments.root / "proc" / "cpuinfo"
    processors.parent.mkdir(exist_ok=True)
    processors.write_text("".join(_PROCESSOR.format(index=index) for index in range(2)))
    table = Table(title="LiteRT: executed instructions for each multiply-accumulate, whole network")
    for column in ("model", *CPUS):
        table.add_column(column, justify="left" if column == "model" else "right")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counter = plugin(folder)
        (folder / "run.py").write_text(_PROGRAM)
        for model in arguments.models:
            case = qcomp.zoo.load(model)
            network = litert_files(case)["int8"]
            graph = qcomp.compile(case.onnx_path, shapes=case.shapes, calibration=case.calibration_samples(4)).graph
            macs = sum(int(node.op.macs(node.call)) for node in graph.nodes)
            runs = max(10, _COUNTED // macs)
            cells = []
            for cpu in CPUS.values():
                line = ["qemu-aarch64", "-cpu", cpu, "-L", str(arguments.root), "-plugin", str(counter), "-d", "plugin"]
                line += ["-E", f"PYTHONPATH={arguments.site}", "-E", "PYTHONHASHSEED=0"]
                line += [str(arguments.root / "usr/bin/python3.11"), str(folder / "run.py"), str(network)]
                few, many = (_count([*line, str(2 + more)]) for more in (0, runs))
                cells.append(f"{(many - few) / runs / macs:.3f}")
            table.add_row(model, *cells)
    Console().print(table)


def _count(line: list[str]) -> int:
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    found = re.search(r"instructions: (\d+)", done.stderr)
    if found is None:
        raise SystemExit(f"LiteRT did not run: {done.stderr.strip().splitlines()[-1:]}")
    return int(found[1])


if __name__ == "__main__":
    main()
