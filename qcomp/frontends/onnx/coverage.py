"""How much of ONNX is covered: its own node tests, imported, interpreted and compared.

`python -m qcomp.frontends.onnx.coverage` prints the counts and every case that is not run, with the reason.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from qcomp.errors import QcompError
from qcomp.frontends.onnx.importer import load_onnx
from qcomp.frontends.onnx.reasons import reason_for
from qcomp.frontends.onnx.tensors import static_dims
from qcomp.frontends.onnx.unsupported import Unsupported
from qcomp.ir.interpreter import run

# Inputs that a compiler has to know: shapes, axes, positions, grids.  Node tests feed them; here they are constants.
CONSTANT_INPUTS: Mapping[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Compress": (1,),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "DequantizeLinear": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "GatherElements": (1,),
    "GatherND": (1,),
    "GRU": (1, 2, 3, 4),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "If": (0,),
    "LSTM": (1, 2, 3, 4),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "OneHot": (1,),
    "Pad": (1, 2, 3),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QuantizeLinear": (1, 2),
    "Range": (0, 1, 2),
    "ReduceL1": (1,),
    "ReduceL2": (1,),
    "ReduceLogSum": (1,),
    "ReduceLogSumExp": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceProd": (1,),
    "ReduceSum": (1,),
    "ReduceSumSquare": (1,),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "ReverseSequence": (1,),
    "Scatter": (1,),
    "ScatterElements": (1,),
    "ScatterND": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}


@dataclass(frozen=True)
class Outcome:
    """What became of one case: `status` is "passed", "skipped" or "failed"; `reason` says why it did not pass."""

    name: str
    status: str
    reason: str = ""


def node_cases() -> list[Any]:
    """Every node test of the installed onnx package."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(collect_testcases(""))


def check_cases(cases: Iterable[Any]) -> list[Outcome]:
    """Runs each case through import and interpreter."""
    cases = list(cases)
    by_name = {c.name: c for c in cases}
    outcomes = []
    for case in cases:
        # A case "..._expanded" holds the definition of the op of the case "..." and has its inputs.
        base = by_name.get(re.sub(r"_expanded(_ver\d+)?$", "", case.name), case)
        outcomes.append(check_case(case, constant_names(base.model) | constant_names(case.model)))
    return outcomes


def constant_names(model: onnx.ModelProto) -> set[str]:
    """Graph inputs that a node needs at compile time."""
    inputs = {i.name for i in model.graph.input}
    return inputs & {
        node.input[p] for node in model.graph.node for p in CONSTANT_INPUTS.get(node.op_type, ()) if p < len(node.input)
    }


def check_case(case: Any, constants: set[str]) -> Outcome:
    """Imports one case, runs each of its data sets, and compares: integers exactly, floats within its tolerance."""
    names = [i.name for i in case.model.graph.input]
    for inputs, outputs in case.data_sets or ():
        given = [i for i in inputs if i is not None] if len(inputs) != len(names) else inputs
        feeds = dict(zip(names, given, strict=False))
        try:
            model = bind_constants(case.model, {k: v for k, v in feeds.items() if k in constants})
            arrays = {k: as_array(v) for k, v in feeds.items() if k not in constants and not isinstance(v, list)}
            graph = load_onnx(model, {k: arrays[k].shape for k in dynamic_inputs(model) if k in arrays})
            results = run(graph, {v.name: arrays[v.name] for v in graph.inputs})
        except Unsupported as error:
            reason = reason_for(str(error))
            return Outcome(case.name, "skipped" if reason else "failed", reason or str(error))
        except QcompError as error:
            return Outcome(case.name, "failed", str(error))
        for value, expected in zip(graph.outputs, outputs, strict=True):
            difference = compare(results[value.name], as_array(expected), case.rtol, case.atol)
            if difference:
                return Outcome(case.name, "failed", f"output {value.name}: {difference}")
    return Outcome(case.name, "passed") if case.data_sets else Outcome(case.name, "skipped", "the case has no data")


def dynamic_inputs(model: onnx.ModelProto) -> set[str]:
    """Inputs whose shape is missing or not static."""
    types = {i.name: i.type.tensor_type for i in model.graph.input}
    return {k for k, t in types.items() if not t.HasField("shape") or any(isinstance(d, str) for d in static_dims(t))}


def bind_constants(model: onnx.ModelProto, values: Mapping[str, Any]) -> onnx.ModelProto:
    """The model with inputs turned into initializers."""
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    for name, value in values.items():
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(np.asarray(value)))
        tensor.name = name
        bound.graph.initializer.append(tensor)
    kept = [i for i in bound.graph.input if i.name not in values]
    del bound.graph.input[:]
    bound.graph.input.extend(kept)
    return bound


def as_array(value: Any) -> np.ndarray:
    """Test data as an array; some of it comes as TensorProto."""
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def compare(got: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> str:
    """What differs; "" if nothing does."""
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return f"{got.dtype}{list(got.shape)} instead of {expected.dtype}{list(expected.shape)}"
    if got.dtype.kind != "f":
        wrong = int(np.count_nonzero(got != expected))
        return f"{wrong} of {got.size} elements differ" if wrong else ""
    if np.allclose(got.astype(np.float64), expected.astype(np.float64), rtol, atol, equal_nan=True):
        return ""
    with np.errstate(all="ignore"):
        return f"largest difference {np.nanmax(np.abs(got.astype(np.float64) - expected.astype(np.float64)))}"


def main() -> int:
    """Prints the coverage table; exit status 1 if a case fails."""
    outcomes = check_cases(node_cases())
    counts = Counter(o.status for o in outcomes)
    print(
        f"{len(outcomes)} node tests: {counts['passed']} passed, {counts['skipped']} skipped, {counts['failed']} failed"
    )
    print("\nskipped, by reason")
    for reason, count in Counter(o.reason for o in outcomes if o.status == "skipped").most_common():
        print(f"  {count:4d}  {reason}")
    for status in ("skipped", "failed"):
        chosen = [o for o in outcomes if o.status == status]
        if chosen:
            print(f"\n{status} cases")
        for outcome in chosen:
            print(f"  {outcome.name}: {outcome.reason}")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
