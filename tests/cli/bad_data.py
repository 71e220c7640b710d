"""Unusable calibration data: name -> (model, writes the data into a folder, further options, what is named)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Writer = Callable[[Path], Path]
DATA: dict[str, tuple[str, Writer, Sequence[str], str]] = {}

GOOD = np.random.default_rng(1).standard_normal((8, 16)).astype(np.float32)


def _npz(name: str, mention: str, model: str = "mlp.onnx", **arrays: Any) -> None:
    def write(folder: Path) -> Path:
        np.savez(folder / "data.npz", **arrays)
        return folder / "data.npz"

    DATA[name] = model, write, (), mention


def _bytes(name: str, mention: str, file: str, content: Callable[[Path], bytes], model: str = "mlp.onnx") -> None:
    def write(folder: Path) -> Path:
        (folder / file).write_bytes(content(folder))
        return folder / file

    DATA[name] = model, write, (), mention


def _one_npy(folder: Path) -> Path:
    np.save(folder / "data.npy", GOOD)
    return folder / "data.npy"


def _saved(**arrays: Any) -> Callable[[Path], bytes]:
    def content(folder: Path) -> bytes:
        import io

        stream = io.BytesIO()
        np.savez(stream, **arrays)
        return stream.getvalue()

    return content


def _with(position: int, value: float) -> np.ndarray:
    array = GOOD.copy()
    array.flat[position] = value
    return array


def _pickled(folder: Path) -> bytes:
    np.save(folder / "data.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    return (folder / "data.npy").read_bytes()


def _images(*files: str, size: tuple[int, int] = (12, 12)) -> Writer:
    def write(folder: Path) -> Path:
        place = folder / "images"
        place.mkdir()
        for file in files:
            Image.new("RGB", size, (10, 200, 30)).save(place / file)
        return place

    return write


def _broken_image(folder: Path) -> Path:
    place = _images("a.png")(folder)
    (place / "b.png").write_bytes(b"\x89PNG but nothing behind it")
    return place


def _empty_folder(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder / "nothing"


def _mixed(folder: Path) -> Path:
    place = _images("a.png")(folder)
    np.save(place / "b.npy", GOOD)
    return place


_npz("no such key", "'x'", y=GOOD)
_npz("another shape", "'x'", x=GOOD[:, :7])
_npz("another rank", "'x'", x=GOOD[0, 0])
_npz("complex numbers", "complex", x=GOOD.astype(np.complex64))
_npz("text", "'x'", x=np.array(["a", "b"]))
_npz("NaN", "NaN", x=_with(37, np.nan))
_npz("infinity", "infinity", x=_with(5, -np.inf))
_npz("no samples", "empty", x=GOOD[:0])
_npz("no arrays", "'x'")
_npz(
    "numbers of samples that differ",
    "a 3",
    "two_inputs.onnx",
    a=np.zeros((3, 8), np.float32),
    b=np.ones((4, 4), np.float32),
)
_bytes("npz that is no zip", "data.npz", "data.npz", lambda folder: b"PK no")
_bytes("npz cut off", "data.npz", "data.npz", lambda folder: _saved(x=GOOD)(folder)[:300])
_bytes("npz with a flipped byte", "data.npz", "data.npz", lambda folder: (
    lambda b: b[:200] + bytes([b[200] ^ 255]) + b[201:])(_saved(x=GOOD)(folder)))  # fmt: skip
_bytes("empty npy", "data.npy", "data.npy", lambda folder: b"")
_bytes("pickled npy", "pickled", "data.npy", _pickled)
_bytes("text file", "data.txt", "data.txt", lambda folder: b"1 2 3")
_bytes("one array for two inputs", "2 inputs", "data.npy", lambda folder: (
    np.save(folder / "data.npy", GOOD), (folder / "data.npy").read_bytes())[1], "two_inputs.onnx")  # fmt: skip
DATA["nothing there"] = "mlp.onnx", (lambda folder: folder / "lost.npz"), (), "lost.npz"
DATA["folder without samples"] = "mlp.onnx", _empty_folder, (), "nothing"
DATA["arrays and images"] = "convnet.onnx", _mixed, (), "both"
DATA["broken image"] = "convnet.onnx", _broken_image, (), "b.png"
DATA["images for a model without images"] = "mlp.onnx", _images("a.png"), (), "image"
DATA["image size that the model does not take"] = "convnet.onnx", _images("a.png"), ("--image-size", "9x9"), "9×9"
DATA["image size that is none"] = "convnet.onnx", _images("a.png"), ("--image-size", "big"), "--image-size"
DATA["image mean that is no number"] = "convnet.onnx", _images("a.png"), ("--image-mean", "1,b"), "--image-mean"
DATA["image mean of two channels"] = "convnet.onnx", _images("a.png"), ("--image-mean", "1,2"), "mean"
DATA["image mean for arrays"] = "mlp.onnx", _one_npy, ("--image-mean", "1"), "--image-mean"
DATA["image order for arrays"] = "mlp.onnx", _one_npy, ("--image-order", "bgr"), "--image-order"
DATA["image std of zero"] = "convnet.onnx", _images("a.png"), ("--image-std", "0"), "std"
DATA["image std of unit range"] = "convnet.onnx", _images("a.png"), ("--image-std", "0.226"), "std"
DATA["image order typo"] = "convnet.onnx", _images("a.png"), ("--image-order", "rbg"), "rbg"
