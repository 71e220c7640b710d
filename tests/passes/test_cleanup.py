"""fold-constants, common-subexpressions, remove-no-ops."""

from __future__ import annotations

import pytest

from qcomp.ir import parse_graph
from qcomp.passes.common_subexpressions import CommonSubexpressions
from qcomp.passes.fold_constants import FoldConstants
from qcomp.passes.manager import run_passes
from qcomp.passes.remove_no_ops import RemoveNoOps


def graph(body: str, x: str = "f32[2,3,4]") -> str:
    return f"graph @m {{\ninput %x: {x}\n{body}\n}}"


def test_constant_operands_are_evaluated(rewritten):
    rewritten(
        FoldConstants(),
        graph("""const %a: f32[4] = [1, 2, 3, 4]
                 %b: f32[4] = neg(%a)
                 %y: f32[2,3,4] = add(%x, %b)
                 output %y"""),
        graph("""const %b: f32[4] = [-1, -2, -3, -4]
                 %y: f32[2,3,4] = add(%x, %b)
                 output %y"""),
    )


def test_quantized_constants_are_not_evaluated(rewritten):
    rewritten(
        FoldConstants(),
        graph("""const %a: i8[4] q(0.5, 0) = [1, 2, 3, 4]
                 const %c: f32[4] = [1, 2, 3, 4]
                 %b: f32[4] = dequantize(%a)
                 %d: f32[4] = fake_quant(%c) {quant = q(0.5, 0)}
                 %e: f32[4] = neg(%d)
                 %y: f32[2,3,4] = add(%x, %b)
                 %z: f32[2,3,4] = add(%y, %e)
                 output %z"""),
        None,
    )


def test_quantizing_a_constant_gives_a_quantized_constant(rewritten):
    rewritten(
        FoldConstants(),
        graph("""const %c: f32[4] = [1, 2, 3, 4]
                 %q: i8[4] q(0.5, 0) = quantize(%c) {quant = q(0.5, 0)}
                 %d: f32[4] = dequantize(%q)
                 %y: f32[2,3,4] = add(%x, %d)
                 output %y"""),
        graph("""const %q: i8[4] q(0.5, 0) = [2, 4, 6, 8]
                 %d: f32[4] = dequantize(%q)
                 %y: f32[2,3,4] = add(%x, %d)
                 output %y"""),
    )


BIG = graph("""const %a: f32[1] = [1]
               %b: f32[2,3,4] = expand(%a) {shape = [2, 3, 4]}
               %y: f32[2,3,4] = add(%x, %b)
               output %y""")


def test_a_result_beyond_the_size_limit_stays_computed(rewritten):
    rewritten(FoldConstants(max_elements=23), BIG, None)


def test_a_result_at_the_size_limit_is_folded():
    assert len(run_passes(parse_graph(BIG), [FoldConstants(max_elements=24)])) == 1


def test_equal_constants_and_nodes_merge(rewritten):
    rewritten(
        CommonSubexpressions(),
        graph("""const %a: f32[1] = [1]
                 const %b: f32[1] = [1]
                 %c: f32[2,3,4] = add(%x, %a)
                 %d: f32[2,3,4] = add(%b, %x)
                 %y: f32[2,3,4] = mul(%c, %d)
                 output %y"""),
        graph("""const %a: f32[1] = [1]
                 %c: f32[2,3,4] = add(%x, %a)
                 %y: f32[2,3,4] = mul(%c, %c)
                 output %y"""),
    )


def test_constants_of_other_types_or_signs_of_zero_stay_apart(rewritten):
    rewritten(
        CommonSubexpressions(),
        graph("""const %a: f32[1] = [0]
                 const %b: f32[1] = [-0.0]
                 const %i: i8[1] q(0.5, 0) = [7]
                 const %j: i8[1] q(0.25, 0) = [7]
                 %c: f32[2,3,4] = add(%x, %a)
                 %d: f32[2,3,4] = add(%c, %b)
                 %k: f32[1] = dequantize(%i)
                 %l: f32[1] = dequantize(%j)
                 %y: f32[2,3,4] = mul(%d, %k)
                 %z: f32[2,3,4] = mul(%y, %l)
                 output %z"""),
        None,
    )


def test_two_equal_outputs_keep_their_names(rewritten):
    rewritten(
        CommonSubexpressions(),
        graph("%y: f32[2,3,4] = relu(%x)\n%z: f32[2,3,4] = relu(%x)\noutput %y\noutput %z"),
        None,
    )


@pytest.mark.parametrize(
    "no_op",
    [
        "identity(%a)",
        "cast(%a) {dtype = !f32}",
        "reshape(%a) {shape = [2, 3, 4]}",
        "expand(%a) {shape = [2, 3, 4]}",
        "tile(%a) {repeats = [1, 1, 1]}",
        "slice(%a) {starts = [0, 0, 0], ends = [2, 3, 4], steps = [1, 1, 1]}",
        "pad(%a) {pads = [0, 0, 0, 0, 0, 0]}",
        "resize(%a) {sizes = [2, 3, 4], scales = [1.0, 1.0, 1.0]}",
        "split(%a) {axis = 0, sizes = [2]}",
        "concat(%a) {axis = 1}",
        "transpose(%a) {perm = [0, 1, 2]}",
        "clip(%a)",
        "add(%a, %zero)",
        "add(%zero, %a)",
        "sub(%a, %zero)",
        "mul(%one, %a)",
        "div(%a, %one)",
        "pow(%a, %one)",
    ],
)
def test_a_node_that_changes_nothing_goes(rewritten, no_op):
    constants = "".join(
        f"const %{n}: f32[1] = [{v}]\n" for n, v in (("zero", 0), ("one", 1)) if f"%{n}" in no_op
    )
    rewritten(
        RemoveNoOps(),
        graph(f"{constants}%a: f32[2,3,4] = tanh(%x)\n%b: f32[2,3,4] = {no_op}\n%y: f32[2,3,4] = exp(%b)\noutput %y"),
        graph('%b: f32[2,3,4] = tanh(%x) @"a"\n%y: f32[2,3,4] = exp(%b)\noutput %y'),
    )


@pytest.mark.parametrize(
    "kept",
    [
        "sub(%zero, %x)",
        "div(%one, %x)",
        "slice(%x) {starts = [0, 0, 3], ends = [2, 3, -1], steps = [1, 1, -1]}",
        "add(%x, %some)",
        "clip(%x) {lo = 0.0}",
        "transpose(%x) {perm = [0, 2, 1]}",
    ],
)
def test_a_node_that_changes_something_stays(rewritten, kept):
    values = {"zero": "0", "one": "1", "some": "0, 0, 0, 1e-9"}
    constants = "".join(
        f"const %{n}: f32[{v.count(',') + 1}] = [{v}]\n" for n, v in values.items() if f"%{n}" in kept
    )
    shape = "2,4,3" if "transpose" in kept else "2,3,4"
    rewritten(RemoveNoOps(), graph(f"{constants}%y: f32[{shape}] = {kept}\noutput %y"), None)


def test_adding_zero_that_enlarges_the_shape_stays(rewritten):
    body = "const %zero: f32[5,4] = [" + ", ".join(["0"] * 20) + "]\n%y: f32[5,4] = add(%x, %zero)\noutput %y"
    rewritten(RemoveNoOps(), graph(body, "f32[4]"), None)


def test_an_identity_between_input_and_output_stays(rewritten):
    rewritten(RemoveNoOps(), graph("%y: f32[2,3,4] = identity(%x)\noutput %y"), None)


def test_an_output_takes_its_name_along(rewritten):
    rewritten(
        RemoveNoOps(),
        graph("%a: f32[2,3,4] = relu(%x)\n%y: f32[2,3,4] = identity(%a)\noutput %y"),
        graph('%y: f32[2,3,4] = relu(%x) @"a"\noutput %y'),
    )


def test_a_value_that_is_two_outputs_keeps_both_names(rewritten):
    rewritten(
        RemoveNoOps(),
        graph("%a: f32[2,3,4] = relu(%x)\n%y: f32[2,3,4] = identity(%a)\noutput %a\noutput %y"),
        None,
    )


def test_reshapes_in_a_row_become_one(rewritten):
    rewritten(
        RemoveNoOps(),
        graph("""%a: f32[2,12] = reshape(%x) {shape = [2, 12]}
                 %y: f32[24] = reshape(%a) {shape = [24]}
                 output %y"""),
        graph("%y: f32[24] = reshape(%x) {shape = [24]}\noutput %y"),
    )


def test_reshapes_there_and_back_vanish(rewritten):
    rewritten(
        RemoveNoOps(),
        graph("""%a: f32[2,12] = reshape(%x) {shape = [2, 12]}
                 %b: f32[2,3,4] = reshape(%a) {shape = [2, 3, 4]}
                 %y: f32[2,3,4] = relu(%b)
                 output %y"""),
        graph("%y: f32[2,3,4] = relu(%x)\noutput %y"),
    )


def test_transposes_in_a_row_become_one(rewritten):
    rewritten(
        RemoveNoOps(),
        graph("""%a: f32[4,2,3] = transpose(%x) {perm = [2, 0, 1]}
                 %y: f32[4,3,2] = transpose(%a) {perm = [0, 2, 1]}
                 output %y"""),
        graph("%y: f32[4,3,2] = transpose(%x) {perm = [2, 1, 0]}\noutput %y"),
    )


def test_a_transpose_that_moves_ones_only_is_a_reshape(rewritten):
    rewritten(
        RemoveNoOps(),
        graph("%y: f32[2,1,1,8] = transpose(%x) {perm = [0, 2, 3, 1]}\noutput %y", "f32[2,8,1,1]"),
        graph("%y: f32[2,1,1,8] = reshape(%x) {shape = [2, 1, 1, 8]}\noutput %y", "f32[2,8,1,1]"),
    )


def test_concats_along_one_axis_become_one(rewritten):
    rewritten(
        RemoveNoOps(),
        graph("""%a: f32[2,6,4] = concat(%x, %x) {axis = 1}
                 %y: f32[2,9,4] = concat(%a, %x) {axis = 1}
                 output %y"""),
        graph("%y: f32[2,9,4] = concat(%x, %x, %x) {axis = 1}\noutput %y"),
    )


def test_an_output_keeps_its_name_when_a_node_after_it_goes(rewritten):
    rewritten(
        RemoveNoOps(),
        graph("""%a: f32[2,3,4] = relu(%x)
                 %b: f32[2,3,4] = identity(%a)
                 %y: f32[2,3,4] = exp(%b)
                 output %a
                 output %y"""),
        graph("%a: f32[2,3,4] = relu(%x)\n%y: f32[2,3,4] = exp(%a)\noutput %a\noutput %y"),
    )
