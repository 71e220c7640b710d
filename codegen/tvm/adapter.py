"""The one place that knows how tvm is imported, which passes lower a PrimFunc, and how it becomes assembler text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from qcomp.errors import QcompError
from qcomp.targets import Target

#: What the back end was made for: other versions have other passes, and some crash (package extra `tvm` pins them).
VERSIONS = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}
_INSTALL = f"pip install {' '.join(f'{name}=={version}' for name, version in VERSIONS.items())}"

#: Directives of debug information, which would be all that tells one build from another.
_DEBUG = re.compile(r"\s*\.(loc|file|cfi_sections|ident|addrsig\w*)\b")
_SECTION = re.compile(r"\s*\.(section|text|data|bss)\b\s*(\S*)")
_CUDA_TYPES = "typedef unsigned char uchar;\ntypedef unsigned int uint;\n\n"
_LOCAL = re.compile(r"\.L(?=[A-Za-z_0-9])")


@cache
def check_installed() -> None:
    """QcompError with how to install it unless the package is there, in the version that this back end is for."""
    if find_spec("tvm") is None:
        raise QcompError("the TVM back end needs package apache-tvm, which is not installed", fix=_INSTALL)
    for name, wanted in VERSIONS.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "a tvm that pip did not install as that"
        if found != wanted:
            raise QcompError(f"the TVM back end needs {name} {wanted}, found {found}", fix=_INSTALL)


@cache
def tvm() -> Any:
    """The tvm package, imported on first use: that takes a second or more, and some 200 MB."""
    check_installed()
    try:
        import tvm as package
        import tvm.s_tir
        import tvm.te
        import tvm.tirx
    except (ImportError, OSError, RuntimeError) as error:
        raise QcompError(f"package tvm cannot be loaded: {error}", fix=f"{_INSTALL} --force-reinstall") from error
    return package


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Errors of TVM, whose checks have classes of their own, as a QcompError of one line."""
    try:
        yield
    except QcompError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise QcompError(
            f"TVM could not {what}: {lines[-1] if lines else type(error).__name__}",
            where="back end tvm", fix="use the back end c, and report this as a defect",
        ) from error  # fmt: skip


def llvm_target(target: Target) -> Any:
    """The target as TVM's LLVM knows it: its architecture with exactly its features."""
    triple = re.sub(r"(gnu\w*)\.[\d.]+$", r"\1", target.triple)
    attributes = [f"+{feature}" for feature in sorted(map(_llvm_feature, target.features))]
    cpu = {"x86_64": "x86-64"}.get(target.arch, "generic")
    return tvm().target.Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu, "mattr": attributes})


def _llvm_feature(feature: str) -> str:
    return {"sse4_1": "sse4.1", "sse4_2": "sse4.2"}.get(feature, feature).replace("_", "-")


def lowered(func: Any, target: Any) -> Any:
    """A scheduled PrimFunc without blocks, with flat buffers, vectors and unrolled loops; still with its buffers as
    parameters."""
    package = tvm()
    s_tir, tirx = package.s_tir.transform, package.tirx.transform
    module = tirx.BindTarget(target)(package.IRModule({"main": func}))
    passes = [
        s_tir.CanonicalizeLoop(), s_tir.LowerInitBlock(), s_tir.PlanAndUpdateBufferAllocationLocation(),
        s_tir.ConvertBlocksToOpaque(), s_tir.CompactBufferAllocation(), s_tir.LowerMatchBuffer(),
        s_tir.StmtSimplify(), s_tir.LowerOpaqueBlock(), tirx.FlattenBuffer(), tirx.NarrowDataType(32),
        s_tir.LoopPartition(), tirx.VectorizeLoop(True), tirx.StorageRewrite(), tirx.UnrollLoop(),
        s_tir.RenormalizeSplitPattern(), tirx.StmtSimplify(), tirx.RemoveNoOp(), s_tir.RewriteUnsafeSelect(),
        tirx.CommonSubexprElim(), tirx.VerifyMemory(), tirx.AnnotateEntryFunc(),
    ]  # fmt: skip
    return package.ir.transform.Sequential(passes)(module)["main"]


def restrided(func: Any, layouts: Mapping[str, Sequence[int]]) -> Any:
    """The function with other strides, in elements, of the buffers that it takes; by their names.

    Inputs may overlap themselves: that is how windows of an image are a dense tensor to the schedule."""
    package = tvm()
    import tvm_ffi

    changed = [(p, _restrided(p, layouts[p.name])) for p in func.params if p.name in layouts]

    def replaced(var: Any) -> Any:
        return next((new for old, new in changed if var.same_as(old)), var)

    return tvm_ffi.structural_map(func, [(package.ir.Var, replaced)])


def _restrided(param: Any, strides: Sequence[int]) -> Any:
    assert len(strides) == len(param.ty.shape), param.name
    return tvm().tirx.decl_buffer(param.ty.shape, param.ty.dtype, param.name, strides=list(strides))


def plain(func: Any, name: str, aliased: bool) -> Any:
    """A lowered function as C calls it: `int32_t NAME(T* ...)`, a pointer for every buffer; it returns 0.

    aliased: a result may lie where an operand does."""
    package = tvm()
    import tvm_ffi

    types, tirx = package.ir, package.tirx
    pointers = [(p, tirx.Var(p.name, types.PointerType(p.ty.dtype))) for p in func.params]

    def replaced(call: Any) -> Any:
        if getattr(call.op, "name", "") != "tirx.buffer_data":
            return call
        return next((new for old, new in pointers if call.args[0].same_as(old)), call)

    body = tvm_ffi.structural_map(func.body, [(types.Call, replaced)])
    body = tirx.SeqStmt([body, tirx.stmt.Return(tirx.const(0, "int32"))])
    made = tirx.PrimFunc([pointer for _, pointer in pointers], body, types.PrimType("int32"))
    attributes = {"global_symbol": name, "target": func.attrs["target"], "calling_conv": 0}
    if not aliased:
        attributes["tirx.noalias"] = True
    for key, value in attributes.items():
        made = made.with_attr(key, value)
    return made


def assembly(func: Any, name: str, target: Target, aliased: bool = False) -> str:
    """Assembler text of a scheduled PrimFunc, for any assembler of the target: one function, hidden in what it is
    linked into."""
    package, machine = tvm(), llvm_target(target)
    made = plain(lowered(func, machine), name, aliased)
    module = package.tirx.transform.LowerIntrin()(package.IRModule({name: made}))
    built = package.get_global_func("target.build.llvm")(module, machine)
    return _function_alone(built.inspect_source("asm"), name)


def _function_alone(text: str, name: str) -> str:
    """Without debug information and the helpers that TVM adds to every module; local labels carry the name."""
    kept, inside = [], True
    for line in text.splitlines():
        section = _SECTION.match(line)
        if section:
            inside = not any(word in line for word in (".debug", "tvm.fp16", "llvm_addrsig"))
        if inside and not _DEBUG.match(line):
            kept.append(line)
    alone = _LOCAL.sub(f".L{name}_", "\n".join(kept))
    return f"\t.hidden\t{name}\n{alone}\n"


def lowered_kernel(func: Any, name: str, arch: str) -> str:
    """CUDA C of a PrimFunc with loops that are bound to blocks and threads: one kernel of that name."""
    package = tvm()
    from tvm.tirx.build import split_host_device_mods

    target = package.target.Target({"kind": "cuda", "arch": arch}, host={"kind": "llvm"})
    module = package.tirx.transform.BindTarget(target)(package.IRModule({name: func.with_attr("global_symbol", name)}))
    pipeline, _, finalize = package.tirx.get_tir_pipeline("s_tir")
    _, devices = split_host_device_mods(pipeline(module))
    ((machine, kernels),) = devices.items()
    source: str = package.get_global_func("target.build.cuda")(finalize()(kernels), machine).inspect_source()
    # What TVM puts before it is for types that no kernel has, and needs headers.
    return _CUDA_TYPES + source[source.index('extern "C" __global__') :].replace(f"{name}_kernel", name)
