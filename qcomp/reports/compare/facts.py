"""A comparison as a JSON object."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from qcomp.reports.compare.cost import SOURCE
from qcomp.reports.compare.distribution import Distribution
from qcomp.reports.compare.layers import LayerError
from qcomp.reports.compare.result import Comparison, Side, StepFigures


def facts(found: Comparison) -> dict[str, Any]:
    """What `qcomp compare --json` prints.  Shares are between 0 and 1; null stands for what was not measured, and as an
    SQNR of outputs for no error at all."""
    decided = found.decided
    return {
        "model": found.model,
        "model_precision": found.model_precision,
        "artifact": found.artifact,
        "precision": found.precision,
        "target": found.info.target,
        "samples": found.samples,
        "threads": found.threads,
        "passed": found.passed,
        "checks": [asdict(check) for check in found.checks],
        "decisions": decided.total,
        "agreement": decided.agreement,
        "drop": decided.drop,
        "speedup": found.speedup,
        "onnxruntime": {"top1": decided.float_top1} | _side(found.float_side),
        "qcomp": {"top1": decided.int8_top1} | _side(found.int8_side),
        "arena_bytes": found.info.arena_bytes,
        "weights_bytes": found.info.weights_bytes,
        "int8_share_of_macs": found.integer_share,
        "energy_is": f"an estimate: operations and bytes times the figures of {SOURCE}",
        "outputs": [asdict(output) for output in found.outputs],
        "layer_samples": found.study.samples if found.study is not None else 0,
        "steps": [_step(step) for step in found.steps],
        "islands": [dict(island) for island in found.islands],
        "memory_plan": None if found.plan is None else asdict(found.plan),
        "calibration": None if found.calibration is None else _calibration(found),
        "front": [asdict(candidate) for candidate in found.front],
        "notes": list(found.notes),
    }


def _calibration(found: Comparison) -> dict[str, Any]:
    assert found.calibration is not None
    return {
        "samples": found.calibration.samples,
        "findings": [{"code": code, "message": message} for code, message in found.calibration.findings],
        "parts": [asdict(part) for part in found.calibration.parts],
    }


def _side(side: Side) -> dict[str, Any]:
    cost = side.cost
    return {
        "median_ms": side.median_ms,
        "min_ms": side.min_ms,
        "runs": side.runs,
        "disk_bytes": side.disk_bytes,
        "memory_bytes": side.memory_bytes,
        "resident_growth_bytes": None if side.resident is None else side.resident.growth,
        "resident_peak_bytes": None if side.resident is None else side.resident.peak,
        "macs": {"int8": cost.int8_macs, "float32": cost.float_macs},
        "bytes_moved": cost.bytes_moved,
        "energy_estimate_uj": cost.energy_uj,
        "energy_estimate_arithmetic_uj": cost.arithmetic_uj,
        "energy_estimate_traffic_uj": cost.traffic_uj,
    }


def _step(step: StepFigures) -> dict[str, Any]:
    return {
        "name": step.name,
        "op": step.op,
        "kernel": step.kernel,
        "precision": step.precision,
        "shape": list(step.shape),
        "ms": step.milliseconds,
        "share": step.share,
        "macs": step.macs,
        "bytes_moved": step.bytes_moved,
        "error": None if step.error is None else _error(step.error),
    }


def _error(error: LayerError) -> dict[str, Any]:
    return {
        "value": error.value,
        "float_tensor": error.reference or None,
        "accumulated_sqnr_db": error.accumulated_db,
        "isolated_sqnr_db": error.isolated_db,
        "activation": _range(error.activation),
        "weights": _range(error.weights),
    }


def _range(found: Distribution | None) -> dict[str, float] | None:
    if found is None:
        return None
    return {
        "grid_lo": found.grid_lo, "grid_hi": found.grid_hi, "seen_lo": found.seen_lo, "seen_hi": found.seen_hi,
        "clipped": found.clipped, "grid_used": found.used,
    }  # fmt: skip
