from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import METADATA

from qcomp.errors import QcompError
from qcomp.runtime.artifact import FOOTER_BYTES, TensorInfo, read_trailer, write_trailer
from qcomp.runtime.features import cpu_features, machine
from qcomp.runtime.loader import load
from qcomp.runtime.metadata import metadata_text


def refuse(path: Path, reason: str) -> None:
    """Both who reads the file and who loads it refuse it, in one line that names it."""
    for reader in (read_trailer, load):
        with pytest.raises(QcompError, match=reason) as caught:
            reader(path)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def rewrite(artifact: Path, folder: Path, change: Callable[[bytearray], bytes | bytearray]) -> Path:
    path = folder / "changed.so"
    path.write_bytes(change(bytearray(artifact.read_bytes())))
    return path


def test_layout_is_elf_then_json_then_footer(artifact: Path, elf: bytes) -> None:
    data = artifact.read_bytes()
    text = metadata_text(METADATA)
    assert data[: len(elf)] == elf
    assert data[len(elf) : -FOOTER_BYTES] == text
    assert data[-FOOTER_BYTES:-32] == b"QCOMPART" + struct.pack("<IIQQ", 1, 0, len(elf), len(text))
    assert data[-16:] == bytes(16)


def test_metadata_that_the_library_holds_is_not_repeated(elf: bytes, tmp_path: Path) -> None:
    text = metadata_text(METADATA)
    holder = elf + text + b"\0"
    path = tmp_path / "once.so"
    path.write_bytes(write_trailer(holder, METADATA))
    data = path.read_bytes()
    assert len(data) == len(holder) + FOOTER_BYTES
    assert data[-FOOTER_BYTES:-32] == b"QCOMPART" + struct.pack("<IIQQ", 1, len(elf), len(holder), len(text))
    assert read_trailer(path).metadata == METADATA
    for position in (len(elf), len(holder) - 1, len(data) - 52, len(data) - 40):
        damaged = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        (tmp_path / "damaged.so").write_bytes(damaged)
        refuse(tmp_path / "damaged.so", "damaged")


def test_writing_from_a_path_gives_the_same_bytes(elf: bytes, tmp_path: Path) -> None:
    path = tmp_path / "plain.so"
    path.write_bytes(elf)
    assert write_trailer(path, METADATA) == write_trailer(elf, METADATA)


def test_info_holds_what_was_written(artifact: Path, elf: bytes) -> None:
    info = read_trailer(artifact)
    assert info.metadata == METADATA
    assert (info.format, info.machine, info.elf_bytes, info.model) == (1, machine(), len(elf), "tiny")
    assert info.inputs[0] == TensorInfo("x", np.dtype("float32"), (4, 250))
    assert info.inputs[1] == TensorInfo("q", np.dtype("int8"), (1000,), (0.5,), (3,))
    assert [tensor.name for tensor in info.outputs] == ["y", "z", "where"]
    assert [(step.op, step.macs) for step in info.steps] == [("scale", 1000), ("reverse", 0), ("triple", 2000)]


@pytest.mark.parametrize("metadata", [{}, METADATA | {"inputs": 3}, METADATA | {"isa": None}])
def test_metadata_the_loader_could_not_use_is_not_written(elf: bytes, metadata: dict[str, object]) -> None:
    with pytest.raises(QcompError, match="metadata"):
        write_trailer(elf, metadata)


def test_only_elf_is_written() -> None:
    with pytest.raises(QcompError, match="not an ELF"):
        write_trailer(b"MZ" + bytes(100), METADATA)


def test_every_damaged_byte_is_noticed(artifact: Path, tmp_path: Path) -> None:
    size = artifact.stat().st_size
    text_at = read_trailer(artifact).elf_bytes
    body = [0, 4, 18, 4000, text_at - 1, text_at, text_at + 50, size - FOOTER_BYTES - 1]
    for position in (*body, *range(size - FOOTER_BYTES, size)):
        def flip(data: bytearray, position: int = position) -> bytearray:
            data[position] ^= 0x40
            return data

        in_footer = position - (size - FOOTER_BYTES)
        if 0 <= in_footer < 8:
            reason = "without qcomp's trailer"
        elif 8 <= in_footer < 12:
            reason = "newer than format 2"
        else:
            reason = "damaged"
        refuse(rewrite(artifact, tmp_path, flip), reason)


def test_every_truncation_is_noticed(artifact: Path, tmp_path: Path) -> None:
    size = artifact.stat().st_size
    for kept in (64, 1000, size // 2, size - FOOTER_BYTES, size - 1):
        refuse(rewrite(artifact, tmp_path, lambda data, kept=kept: data[:kept]), "truncated")
    for kept in (0, 1, 3):
        refuse(rewrite(artifact, tmp_path, lambda data, kept=kept: data[:kept]), "not a qcomp artifact")


def test_lost_and_added_bytes_are_noticed(artifact: Path, tmp_path: Path) -> None:
    refuse(rewrite(artifact, tmp_path, lambda data: data[:5000] + data[5008:]), "damaged")
    refuse(rewrite(artifact, tmp_path, lambda data: data[:5000] + bytes(8) + data[5000:]), "damaged")
    refuse(rewrite(artifact, tmp_path, lambda data: data + b"\n"), "without qcomp's trailer")


def test_a_plain_library_is_foreign(elf: bytes, tmp_path: Path) -> None:
    path = tmp_path / "plain.so"
    path.write_bytes(elf)
    refuse(path, "a shared library without qcomp's trailer")


def test_other_files_are_foreign(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"onnx" * 1000)
    refuse(path, "not a qcomp artifact")
    refuse(tmp_path / "absent.so", "No such file")
    refuse(tmp_path, "Is a directory")


def test_a_newer_format_asks_for_an_upgrade(artifact: Path, tmp_path: Path) -> None:
    def bump(data: bytearray) -> bytearray:
        data[-FOOTER_BYTES + 8] = 3
        return data

    refuse(rewrite(artifact, tmp_path, bump), "format 3 is newer than format 2.*upgrade qcomp")


def test_code_for_another_cpu_is_read_but_not_loaded(elf: bytes, tmp_path: Path) -> None:
    other, number = ("aarch64", 183) if machine() == "x86_64" else ("x86_64", 62)
    path = tmp_path / "other.so"
    path.write_bytes(write_trailer(elf[:18] + struct.pack("<H", number) + elf[20:], METADATA))
    assert read_trailer(path).machine == other
    with pytest.raises(QcompError, match=f"built for {other}, this machine is {machine()}"):
        load(path)


def test_missing_cpu_features_are_named(variant: Callable[..., Path]) -> None:
    path = variant(isa=["sse2", "warp_drive", "avx1024"] if machine() == "x86_64" else ["warp_drive", "avx1024"])
    with pytest.raises(QcompError, match="lacks: warp_drive, avx1024;"):
        load(path)


@pytest.mark.skipif("amx_tile" in cpu_features(), reason="this machine has AMX")
def test_amx_needs_the_permission_of_the_system(variant: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcomp.runtime.loader.cpu_features", lambda: frozenset({"amx_tile"}))
    with pytest.raises(QcompError, match="the system refuses the AMX registers"):
        load(variant(isa=["amx_tile"]))


def test_code_and_metadata_must_agree(variant: Callable[..., Path]) -> None:
    with pytest.raises(QcompError, match="its code and its metadata disagree"):
        load(variant(arena_bytes=64))


def test_a_library_that_is_no_model_is_refused(tmp_path: Path) -> None:
    from conftest import zig_cc

    (tmp_path / "plain.c").write_text("int answer(void) { return 42; }\n")
    zig_cc("-shared", tmp_path / "plain.c", "-o", tmp_path / "plain.so")
    path = tmp_path / "dressed_up.so"
    path.write_bytes(write_trailer(tmp_path / "plain.so", METADATA))
    with pytest.raises(QcompError, match="not a complete qcomp library.*qcomp_describe"):
        load(path)
