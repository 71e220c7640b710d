"""Wrong arguments and broken artifacts: name -> (arguments from the folder of good files and an empty one, mention)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from qcomp.runtime.artifact import read_trailer, write_trailer
from qcomp.targets import native

Template = Callable[[Path, Path], list[object]]
ARGUMENTS: dict[str, tuple[Template, str]] = {}


def _compile(name: str, mention: str, *options: object, model: str = "mlp.onnx", out: str = "out.so") -> None:
    def template(made: Path, new: Path) -> list[object]:
        return ["compile", made / model, "-o", new / out, "--calibrate", made / "mlp.npz", *options]

    ARGUMENTS[name] = template, mention


def _command(name: str, mention: str, *arguments: str) -> None:
    """Arguments with MADE and NEW in the place of the two folders."""

    def template(made: Path, new: Path) -> list[object]:
        return [a.replace("MADE", str(made)).replace("NEW", str(new)) for a in arguments]

    ARGUMENTS[name] = template, mention


def _of(name: str, mention: str, template: Template) -> None:
    ARGUMENTS[name] = template, mention


_compile("unknown target", "x86_64-avx512vnn", "--target", "x86_64-avx512vnn")
_compile("target as a path", "../targets", "--target", "../targets/x86_64")
_compile("method typo", "entrpy", "--method", "entrpy")
_compile("effort typo", "unknown effort", "--effort", "most")
_compile("goals without a search", "--min-sqnr is for a search; give --precision auto", "--min-sqnr", "30")
_compile("decoding without a search", "--decode is for a search; give --precision auto", "--decode", "ctc")
_compile("ignored classes without a search", "--ignore is for a search", "--ignore", "0")
_compile("a search that may leave nothing float", "float32", "--precision", "auto", "--require-int8")
_command(
    "effort without data", "--effort high is about calibration data",
    "compile", "MADE/mlp.onnx", "--float", "--effort", "high", "-o", "NEW/o.so",
)  # fmt: skip
_compile("percentile that is no number", "many", "--method", "percentile:many")
_compile("percentile without its number", "'' is not a percentile", "--method", "percentile:")
_compile("percentile beyond 100", "200", "--method", "percentile:200")
_compile("backend that does not exist", "tvn", "--backend", "tvn")
_compile("emit typo", "libs", "--emit", "libs")
_compile("unknown option", "--calibrat", "--calibrat", "x")
_compile("option without its value", "--target", "--target")
_compile("compiler that is not there", "/no/such/cc", "--cc", "/no/such/cc")
_compile("compiler that fails", "false", "--cc", "false")
_compile("compiler that writes nothing", "true: wrote no file", "--cc", "true")
_compile("float and calibrated", "--float", "--float")
_compile("shape without a name", "--shape 1,16", "--shape", "1,16")
_compile("shape of letters", "x=a,16", "--shape", "x=a,16")
_compile("shape with zero", "x=0,16", "--shape", "x=0,16")
_compile("shape with a negative size", "x=-1,16", "--shape", "x=-1,16")
_compile("shape of an unknown input", "'z'", "--shape", "z=1,16")
_compile("shape of another rank", "'x'", "--shape", "x=1,16,2")
_compile("shape against the model", "'x'", "--shape", "x=1,15")
_compile("shape given twice", "twice", "--shape", "x=1,16", "--shape", "x=2,16", model="dynamic.onnx")
_compile("float32 remains under --require-int8", "softmax", "--require-int8", model="softmax.onnx")
_compile("output in a missing folder", "missing", out="missing/out.so")

_compile("level that the target does not carry", "'avx3'", "--target", "x86_64", "--levels", "x86_64-avx2,avx3")
_compile("levels of a target that carries none", "levels", "--target", "aarch64-dotprod", "--levels", "x86_64")

_command("images that are not there", "--calibrate", "compile", "MADE/qdq.onnx", "-o", "NEW/o.so", "--image-std", "2")
_command("output is a folder", "folder", "compile", "MADE/mlp.onnx", "--float", "-o", "NEW")
_command("output is the model", "replace", "compile", "MADE/mlp.onnx", "--float", "-o", "MADE/mlp.onnx")
_command("output where nothing can be written", "/proc", "compile", "MADE/qdq.onnx", "-o", "/proc/out.so")
_command(
    "sources into a folder in use", "not empty",
    "compile", "MADE/mlp.onnx", "--float", "--emit", "c", "-o", "MADE",
)  # fmt: skip
_command("sources over a file", "file", "compile", "MADE/mlp.onnx", "--float", "--emit", "c", "-o", "MADE/mlp.npz")
_command("no output", "--output", "compile", "MADE/mlp.onnx")
_command("no model", "MODEL", "compile")
_command("a model too many", "extra", "check", "MADE/mlp.onnx", "extra.onnx")
_command("float model without data", "--calibrate", "compile", "MADE/mlp.onnx", "-o", "NEW/out.so")
_command("unknown command", "'compil'", "compil", "MADE/mlp.onnx")
_command("unknown general option", "--fast", "--fast")

_command("opt without input", "--list", "opt")
_command("unknown pass", "fold-constant", "opt", "MADE/mlp.onnx", "--passes=fold-constant")
_command("unknown pass option", "'sise'", "opt", "MADE/mlp.onnx", "--passes=fold-constants{sise=3}")
_command(
    "pass option of another type", "'many'",
    "opt", "MADE/mlp.onnx", "--passes=fold-constants{max_elements=many}",
)  # fmt: skip
_command("pipeline with open brackets", "brackets", "opt", "MADE/mlp.onnx", "--passes=fold-constants{")
_command(
    "pass whose conditions fail", "range",
    "opt", "MADE/mlp.onnx", "--passes=insert-fake-quant", "-o", "NEW/o.qir",
)  # fmt: skip
_command("opt output in a missing folder", "missing", "opt", "MADE/mlp.onnx", "-o", "NEW/missing/o.qir")
_command("check with a search", "--save-precision", "check", "MADE/mlp.onnx", "--precision", "auto")
_command("check for an unknown target", "'arm9'", "check", "MADE/mlp.onnx", "--target", "arm9")


def _damage(change: Callable[[bytes], bytes]) -> Callable[[Path, Path], Path]:
    def write(made: Path, new: Path) -> Path:
        (new / "bad.so").write_bytes(change((made / "mlp.so").read_bytes()))
        return new / "bad.so"

    return write


def _metadata(**changes: object) -> Callable[[Path, Path], Path]:
    def write(made: Path, new: Path) -> Path:
        info = read_trailer(made / "mlp.so")
        elf = (made / "mlp.so").read_bytes()[: info.elf_bytes]
        (new / "bad.so").write_bytes(write_trailer(elf, {**info.metadata, **changes}))
        return new / "bad.so"

    return write


def _flip(content: bytes) -> bytes:
    return content[:3000] + bytes([content[3000] ^ 1]) + content[3001:]


_ARTIFACTS: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "missing": (lambda made, new: new / "lost.so", "lost.so"),
    "empty": (_damage(lambda b: b""), "bad.so"),
    "text": (_damage(lambda b: b"no library" * 20), "bad.so"),
    "cut off": (_damage(lambda b: b[: len(b) // 2]), "bad.so"),
    "with a flipped bit": (_damage(_flip), "checksum"),
    "with text behind it": (_damage(lambda b: b + b"more"), "bad.so"),
}


def _artifact(name: str, command: str) -> Template:
    def template(made: Path, new: Path) -> list[object]:
        inputs = ["--input", made / "mlp_one.npz"] if command == "run" else []
        return [command, _ARTIFACTS[name][0](made, new), *inputs]

    return template


for _name in _ARTIFACTS:
    for _verb in ("run", "bench", "inspect"):
        _of(f"{_verb}: artifact {_name}", _ARTIFACTS[_name][1], _artifact(_name, _verb))


def _run(name: str, mention: str, write: Callable[[Path, Path], Path], *options: object) -> None:
    def template(made: Path, new: Path) -> list[object]:
        return ["run", made / "mlp.so", "--input", write(made, new), "-o", new / "out.npz", *options]

    ARGUMENTS[f"run: {name}"] = template, mention


def _npz(**arrays: np.ndarray) -> Callable[[Path, Path], Path]:
    def write(made: Path, new: Path) -> Path:
        np.savez(new / "in.npz", allow_pickle=True, **arrays)
        return new / "in.npz"

    return write


def _raw(content: bytes) -> Callable[[Path, Path], Path]:
    def write(made: Path, new: Path) -> Path:
        (new / "in.npz").write_bytes(content)
        return new / "in.npz"

    return write


ONE = np.zeros((1, 16), np.float32)
_run("missing input", "'x'", _npz(y=ONE))
_run("unknown input", "z", _npz(x=ONE, z=ONE))
_run("wrong shape", "in.npz", _npz(x=ONE[:, :5]))
_run("wrong type", "float64", _npz(x=ONE.astype(np.float64)))
_run("objects", "pickled", _npz(x=np.array([None, {}], dtype=object)))
_run("no arrays", "'x'", _npz())
_run("input that is no npz", "in.npz", _raw(b"no zip at all"))
_run("input of zero bytes", "in.npz", _raw(b""))
_run("input that is not there", "lost.npz", lambda made, new: new / "lost.npz")
_run("negative threads", "-3", lambda made, new: made / "mlp_one.npz", "--threads", "-3")
_run("threads in words", "--threads", lambda made, new: made / "mlp_one.npz", "--threads", "two")
_command("run: no input", "--input", "run", "MADE/mlp.so")
_command(
    "run: output in a missing folder", "missing",
    "run", "MADE/mlp.so", "--input", "MADE/mlp_one.npz", "-o", "NEW/missing/o.npz",
)  # fmt: skip
_of("run: features that this CPU lacks", "warp9", lambda made, new: [
    "run", _metadata(isa=["sse2", "warp9"])(made, new), "--input", made / "mlp_one.npz"])  # fmt: skip
_of("run: metadata that tells another story", "disagree", lambda made, new: [
    "run", _metadata(arena_bytes=77)(made, new), "--input", made / "mlp_one.npz"])  # fmt: skip
_run("unknown level", "'fast'", lambda made, new: made / "mlp_one.npz", "--level", "fast")
_command("bench: unknown level", "'fast'", "bench", "MADE/mlp.so", "--level", "fast")
_command("inspect: unknown level", "'fast'", "inspect", "MADE/mlp.so", "--level", "fast")
_command("inspect: level of a model", "--level", "inspect", "MADE/mlp.onnx", "--level", "x86_64")
_command("bench: unknown engine", "'tflite'", "bench", "MADE/mlp.so", "--against", "tflite")
_command("bench: engine without a model", "--model", "bench", "MADE/mlp.so", "--against", "onnxruntime")
_command(
    "bench: engine that is there twice", "twice",
    "bench", "MADE/mlp.so", "--against", "onnxruntime,onnxruntime", "--model", "MADE/mlp.onnx",
)  # fmt: skip
_command(
    "bench: model of another engine", "mlp.npz",
    "bench", "MADE/mlp.so", "--against", "onnxruntime", "--model", "MADE/mlp.onnx", "--model", "MADE/mlp.npz",
)  # fmt: skip
_command("bench: model without an engine", "--against", "bench", "MADE/mlp.so", "--model", "MADE/mlp.onnx")
_command("bench: negative runs", "-5", "bench", "MADE/mlp.so", "--runs", "-5")
_command(
    "bench: another model", "a, b",
    "bench", "MADE/mlp.so", "--against", "onnxruntime", "--model", "MADE/two_inputs.onnx",
)  # fmt: skip
_of("bench: model that onnxruntime refuses", "bad.onnx", lambda made, new: [
    "bench", made / "mlp.so", "--against", "onnxruntime", "--model", _text(new)])  # fmt: skip


def _text(folder: Path) -> Path:
    (folder / "bad.onnx").write_bytes(b"no model")
    return folder / "bad.onnx"


def _tune(name: str, mention: str, *options: object, model: str = "mlp.onnx", out: str = "t.json") -> None:
    def template(made: Path, new: Path) -> list[object]:
        return ["tune", made / model, "-o", new / out, *options]

    ARGUMENTS[f"tune: {name}"] = template, mention


_tune("target that this machine cannot run", "aarch64", "--target", "aarch64")
_tune("unknown target", "x86_64-avx3", "--target", "x86_64-avx3")
_tune("target of several targets", "take no tuning", "--target", "x86_64")
_tune("target without schedules", "nothing to tune", "--target", "generic")
_tune("no candidates", "0 candidates", "--candidates", "0")
_tune("candidates in words", "--candidates", "--candidates", "many")
_tune("negative threads", "-2", "--threads", "-2")
_tune("threads by the thousand", "99999 threads", "--threads", "99999")
_command("bench: threads by the thousand", "99999 threads", "bench", "MADE/mlp.so", "--threads", "99999")
_tune("compiler that is not there", "/no/such/cc", "--cc", "/no/such/cc")
_tune("method typo", "entrpy", "--method", "entrpy")
_tune("images that are not there", "--calibrate", "--image-std", "2")
_tune("model that is not there", "lost.onnx", model="lost.onnx")
_tune("output in a missing folder", "missing", out="missing/t.json")
_tune("output is a folder", "folder", out="")
_tune("shape of an unknown input", "'z'", "--shape", "z=1,16")
_command("tune: nowhere to write", "--output", "tune", "MADE/mlp.onnx")
_command("tune: output is the model", "replace", "tune", "MADE/mlp.onnx", "-o", "MADE/mlp.onnx")
_command("tune: file that is not there", "lost.json", "tune", "MADE/mlp.onnx", "--tuning", "NEW/lost.json")

_TUNINGS = {
    "missing": (None, "bad.json"),
    "empty": ("", "bad.json"),
    "a folder's worth of nonsense": ("\0\1\2", "bad.json"),
    "other JSON": ('{"a": 1}', "bad.json"),
    "of a later version": ('{"format": 7}', "format 7"),
    "damaged": ('{"format": 1, "cpu": "c", "target": "x86_64", "layers": {"l": 1}}', "'l'"),
    "for another target": ('{"format": 1, "cpu": "c", "target": "z80", "layers": {}}', "z80"),
}


def _tuning(content: str | None, *command: str) -> Template:
    def template(made: Path, new: Path) -> list[object]:
        if content is not None:
            (new / "bad.json").write_text(content)
        output = [] if command[0] == "tune" else ["-o", new / "out.so", "--calibrate", made / "mlp.npz"]
        return [command[0], made / "mlp.onnx", *output, "--tuning", new / "bad.json"]

    return template


for _name, (_content, _mention) in _TUNINGS.items():
    for _verb in ("compile", "tune"):
        _of(f"{_verb}: tuning file {_name}", _mention, _tuning(_content, _verb))
_of("compile: tuning of several targets", "for x86_64-avx2 alone", lambda made, new: _several(made, new))
_of("tune: file of another CPU", "'no such CPU'", lambda made, new: _other_cpu(made, new))


def _several(made: Path, new: Path) -> list[object]:
    (new / "good.json").write_text('{"format": 1, "cpu": "", "layers": {}, "target": "x86_64-avx2"}')
    given = ["compile", made / "mlp.onnx", "-o", new / "out.so", "--calibrate", made / "mlp.npz"]
    return [*given, "--target", "x86_64", "--levels", "x86_64-avx2", "--tuning", new / "good.json"]


def _other_cpu(made: Path, new: Path) -> list[object]:
    content = f'{{"format": 1, "cpu": "no such CPU", "target": "{native().name}", "layers": {{}}}}'
    (new / "bad.json").write_text(content)
    return ["tune", made / "mlp.onnx", "--tuning", new / "bad.json"]
