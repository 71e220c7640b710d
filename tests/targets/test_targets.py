"""Targets are data, checked when they are read."""

from __future__ import annotations

import dataclasses

import pytest

from qcomp.errors import QcompError
from qcomp.targets import Target, levels, native, parse_target, target, target_names
from qcomp.targets.loader import check_carried, richest

VALID = 'name = "t"\ndescription = "a test"\narch = "x86_64"\n'


def test_every_file_is_a_valid_target() -> None:
    known = {"generic", "x86_64", "x86_64-avx512vnni", "x86_64-avx512vbmi", "x86_64-amx", "aarch64"}
    assert known <= set(target_names())
    for name in target_names():
        assert target(name).name == name
        assert target(name).description


def test_an_unknown_target_is_answered_with_close_names() -> None:
    with pytest.raises(QcompError, match="did you mean .*x86_64-avx512vnni"):
        target("x86_64-avx512vni")


@pytest.mark.parametrize("name", ["../targets/generic", "", "/etc/passwd"])
def test_a_target_is_a_name_and_no_path(name: str) -> None:
    with pytest.raises(QcompError, match="no target is called"):
        target(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (VALID + "speed = 3\n", "unknown key 'speed'"),
        ('name = "t"\n', "'description' is missing"),
        (VALID + "x = [", "not valid TOML"),
        (VALID.replace("x86_64", "z80"), "arch 'z80' is not one of"),
        (VALID + 'activation_storage = "i8"\n', "neither u8 nor s8"),
        (VALID + "vector_bytes = 48\n", "not a power of two"),
        (VALID + 'vector_bytes = "64"\n', "malformed value"),
        (VALID + 'dot_product = "s8u8"\n', "dot_product 's8u8'"),
        (VALID + 'features = ["avx512f"]\n', "avx512f implies avx2 and fma"),
        (VALID.replace("x86_64", "aarch64") + 'features = ["avx2"]\n', "aarch64 has no x86 features"),
        (VALID + "[flags]\nmsvc = []\n", "unknown compiler 'msvc'"),
        (VALID + "[caches]\nl1 = 0\n", "cache l1 has 0 bytes"),
        (VALID + '[[memories]]\nname = "flash"\nbytes = 4\nkind = "disk"\n', "memory 'flash'"),
        (VALID + '[[memories]]\nsize = 4\n', "malformed value"),
        (VALID + '[[memories]]\nname = "a b"\nbytes = 4\nkind = "rom"\n', "a name of letters"),
        (VALID + '[[memories]]\nname = "rom"\nbytes = 4\nkind = "rom"\norigin = -1\n', "positive size"),
        (VALID + 'emulator = "qemu"\n', "'emulator' is no list of strings"),
        (VALID + 'requantize = "double"\n', "requantize 'double' is not one of float, fixed"),
        (VALID + 'triple = "thumb-freestanding-eabi"\n', "needs memories of kind ram and rom"),
    ],
)
def test_a_malformed_target_is_refused(text: str, message: str) -> None:
    with pytest.raises(QcompError, match=message):
        parse_target(text, "t.toml")


def test_a_target_file_gives_every_field() -> None:
    text = VALID + 'features = ["avx2", "fma"]\nemulator = ["qemu"]\n[flags]\nzig = ["-mcpu=x"]\n[caches]\nl1 = 1024\n'
    found = parse_target(text + '[[memories]]\nname = "flash"\nbytes = 4096\nkind = "rom"\n', "t.toml")
    assert found.features == {"avx2", "fma"}
    assert found.compiler_flags("zig") == ("-mcpu=x",)
    assert found.memories[0].bytes == 4096
    assert found.stored_offset == 0 and found.stored_ctype == "int8_t"


def test_flags_for_a_compiler_that_the_target_does_not_know() -> None:
    with pytest.raises(QcompError, match="cannot be compiled with gcc"):
        parse_target(VALID + "[flags]\nzig = []\n", "t.toml").compiler_flags("gcc")


def test_the_richest_target_that_the_features_allow_is_native() -> None:
    vnni, vbmi = target("x86_64-avx512vnni"), target("x86_64-avx512vbmi")
    amx = target("x86_64-amx")
    assert richest("x86_64", amx.features) is amx
    assert richest("x86_64", amx.features - {"amx_int8"}) is vbmi
    assert richest("x86_64", vbmi.features) is vbmi
    assert richest("x86_64", vnni.features) is vnni
    assert richest("x86_64", vnni.features - {"avx512vnni"}).name == "x86_64-avx2"
    assert richest("x86_64", vnni.features - {"avx512vnni"} | {"avxvnni"}).name == "x86_64-avxvnni"
    assert richest("x86_64", frozenset({"sse2"})).name == "x86_64"
    with pytest.raises(QcompError, match="no target fits this machine"):
        richest("vax", frozenset())
    assert native() in [dataclasses.replace(target(n), carries=()) for n in target_names()]


def test_native_carries_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcomp.targets.loader.cpu_features", lambda: frozenset({"sse2"}))
    monkeypatch.setattr("qcomp.targets.loader.machine", lambda: "x86_64")
    assert (native().name, native().carries) == ("x86_64", ())
    assert target("x86_64").carries


def test_levels_are_the_carried_targets_from_the_most_preferred_to_the_target_itself() -> None:
    base = target("x86_64")
    assert [level.name for level in levels(base)] == sorted(
        (*base.carries, "x86_64"), key=lambda name: -target(name).preference
    )
    some = ("x86_64-avx2", "x86_64-avx512vnni")
    assert [level.name for level in levels(base, some)] == ["x86_64-avx512vnni", "x86_64-avx2", "x86_64"]
    assert levels(base, ("x86_64",)) == (base,)
    assert levels(target("aarch64-dotprod")) == (target("aarch64-dotprod"),)


def test_levels_that_are_not_carried_are_named() -> None:
    with pytest.raises(QcompError, match="target x86_64 carries no level 'aarch64'; name some of .*x86_64-avx2"):
        levels(target("x86_64"), ("x86_64-avx2", "aarch64"))
    with pytest.raises(QcompError, match="target aarch64-dotprod carries no level 'x86_64'; leave the levels out"):
        levels(target("aarch64-dotprod"), ("x86_64",))


BASE = VALID + 'features = ["sse2"]\ntriple = "a-b"\n'
RICHER = BASE.replace('"t"', '"r"').replace('["sse2"]', '["sse2", "avx"]')


@pytest.mark.parametrize(
    ("carries", "richer", "message"),
    [
        (["lost"], RICHER, "cannot carry 'lost': there is no such target"),
        ([3], RICHER, "cannot carry 3: there is no such target"),
        (["t"], RICHER, "cannot carry 't': it carries targets itself"),
        (["r"], RICHER + 'carries = ["x"]\n', "cannot carry 'r': it carries targets itself"),
        (["r"], RICHER.replace("x86_64", "arm").replace(', "avx"', "").replace("sse2", "neon"), "it is for arm a-b"),
        (["r"], RICHER.replace("a-b", "c-d"), "it is for x86_64 c-d, not x86_64 a-b"),
        (["r"], RICHER.replace("sse2", "fma"), "its features are no more than those of t"),
        (["r"], BASE.replace('"t"', '"r"'), "its features are no more than those of t"),
        (["r"], RICHER + "[flags]\nzig = []\n", "its flags are not for the compilers of t"),
        (["r", "r"], RICHER, "a carried target is named twice"),
    ],
)
def test_what_cannot_be_carried_is_refused(carries: list[object], richer: str, message: str) -> None:
    base = parse_target(BASE + f"carries = {carries!r}\n", "t.toml")
    with pytest.raises(QcompError, match=message):
        check_carried(base, {"t": base, "r": parse_target(richer, "r.toml")})


def test_a_richer_target_of_the_same_machine_can_be_carried() -> None:
    base = parse_target(BASE + 'carries = ["r"]\n', "t.toml")
    check_carried(base, {"r": parse_target(RICHER, "r.toml")})


def test_a_target_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        target("generic").name = "other"  # type: ignore[misc]
    assert isinstance(hash(target("generic")), int)
    assert isinstance(target("generic"), Target)
