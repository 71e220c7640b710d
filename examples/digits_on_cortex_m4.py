"""Makes what the example of docs/microcontrollers.md needs: a digit recognizer and data, in the current folder.

    python examples/digits_on_cortex_m4.py

It writes digits.onnx (a depthwise-separable network for MNIST digits, trained in about a minute by torch),
calibration.npz (64 training digits), digits.npz (100 others) and labels.npy.  From there to a board:

    qcomp compile digits.onnx -o digits.elf --target cortex-m4 --calibrate calibration.npz
    qcomp run digits.elf --emulate --input digits.npz --output logits.npz

With `--check logits.npz` this script says how many of the digits were read right.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np

import qcomp.zoo

DIGITS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a digit recognizer and its data, or check what it read.")
    parser.add_argument("--check", type=Path, metavar="LOGITS.npz", help="outputs of the digits in digits.npz")
    logits: Path | None = parser.parse_args().check
    if logits is None:
        write_files()
    else:
        check(logits)


def write_files() -> None:
    case = qcomp.zoo.load("mnist_dscnn")
    (name,) = case.calibration_samples(1)
    shutil.copy(case.onnx_path, "digits.onnx")
    np.savez("calibration.npz", **case.calibration_samples(64))
    np.savez("digits.npz", **{name: case.inputs[:DIGITS]})
    np.save("labels.npy", case.labels[:DIGITS])
    print("wrote digits.onnx, calibration.npz, digits.npz and labels.npy")


def check(logits: Path) -> None:
    labels = np.load("labels.npy")
    with np.load(logits) as outputs:
        (found,) = (outputs[name].argmax(axis=-1) for name in outputs)
    right = int((found.reshape(-1) == labels).sum())
    print(f"{right} of {len(labels)} digits were read right")


if __name__ == "__main__":
    main()
