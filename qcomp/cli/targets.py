"""`qcomp targets`: what can be compiled for, and what of it runs here."""

from __future__ import annotations

from qcomp.cli.arguments import Json


def targets(json: Json = False) -> None:
    """List the targets, and which of them this machine can run."""
    from qcomp.cli.output import print_json, print_table
    from qcomp.errors import QcompError
    from qcomp.runtime.features import cpu_features, machine
    from qcomp.targets.loader import native, target, target_names

    try:
        here = native().name
    except QcompError:
        here = ""  # a machine that no target describes
    rows = []
    for found in map(target, target_names()):
        own = found.arch in (machine(), "generic")
        rows.append(
            {
                "name": found.name,
                "description": found.description,
                "arch": found.arch,
                "runs_here": own and found.features <= cpu_features(),
                "native": found.name == here,
                "missing": sorted(found.features - cpu_features()) if own else [],
                "features": sorted(found.features),
                "vector_bytes": found.vector_bytes,
                "activation_storage": found.activation_storage,
                "dot_product": found.dot_product,
                "compilers": sorted(found.flags),
                "caches": dict(found.caches),
                "memories": [{"name": m.name, "bytes": m.bytes, "kind": m.kind} for m in found.memories],
                "emulator": list(found.emulator),
                "carries": list(found.carries),
            }
        )
    if json:
        print_json({"machine": machine(), "cpu_features": sorted(cpu_features()), "native": here, "targets": rows})
        return
    print_table(
        "",
        ("target", "arch", "runs here", "features", "description"),
        [(r["name"], r["arch"], _runs(r), _features(r["features"]), r["description"]) for r in rows],
    )


def _runs(row: dict[str, object]) -> str:
    if row["native"]:
        return "native"
    if row["runs_here"]:
        return "yes"
    missing = row["missing"]
    return f"no: lacks {', '.join(map(str, missing))}" if isinstance(missing, list) and missing else "no"


def _features(features: object) -> str:
    """The features that tell targets of one family apart: what a wider one implies is left out."""
    assert isinstance(features, list)
    shown = [f for f in features if f.startswith(("avx", "amx", "neon", "dotprod", "i8mm", "dsp", "mve", "fp32", "v"))]
    return " ".join(shown) or "-"
