"""Operands and attributes that do not fit are refused in one line that names the node and what was found."""

from __future__ import annotations

import pytest

from qcomp.errors import QcompError
from qcomp.ir import parse_graph

Q = "q(0.5, 3)"

# op call, operand types, result type as written, and what the message has to say
REFUSED = [
    ("conv2d(%a, %b)", ["f32[1,3,8,8]", "f32[4,2,3,3]"], "3 channels, weights [4, 2, 3, 3] and 1 groups"),
    ("conv2d(%a, %b)", ["f32[1,3,8,8]", "f32[4,3,9,3]"], "larger than the padded input"),
    ("conv2d(%a, %b)", ["f32[1,3,8]", "f32[4,3,3,3]"], "x has shape [1, 3, 8]"),
    ("conv2d(%a, %b)", ["f32[1,3,8,8]", "f32[4,3,3]"], "w has shape [4, 3, 3]"),
    ("conv2d(%a, %b, %c)", ["f32[1,3,8,8]", "f32[4,3,3,3]", "f32[3]"], "bias has shape [3], not [4]"),
    ('conv2d(%a, %b) {layout = "NWHC"}', ["f32[1,3,8,8]", "f32[4,3,3,3]"], "layout 'NWHC'"),
    ("conv2d(%a, %b)", ["i8[1,3,8,8]", "i8[4,3,3,3]"], "operand is i8, not a float"),
    ("conv2d(%a, %b) {strides = [0, 1]}", ["f32[1,3,8,8]", "f32[4,3,3,3]"], "strides (0, 1)"),
    ("conv2d(%a, %b) {pads = [1, 1]}", ["f32[1,3,8,8]", "f32[4,3,3,3]"], "not those of two dimensions"),
    ("conv_transpose2d(%a, %b)", ["f32[1,3,8,8]", "f32[4,3,3,3]"], "3 channels"),
    ("conv_transpose2d(%a, %b) {pads = [9, 9, 9, 9]}", ["f32[1,3,8,8]", "f32[3,3,3,3]"], "the output would have size"),
    ("gemm(%a, %b)", ["f32[2,3]", "f32[4,5]"], "matrices [2, 3] and [4, 5] do not multiply"),
    ("gemm(%a, %b, %c)", ["f32[2,3]", "f32[3,5]", "f32[4]"], "c [4] does not broadcast to [2, 5]"),
    ("gemm(%a, %b)", ["f32[2]", "f32[3,5]"], "are not matrices"),
    ("matmul(%a, %b)", ["f32[2,3]", "f32[2,3]"], "do not multiply"),
    ("matmul(%a, %b)", ["f32[2,3]", "f64[3,2]"], "operand types differ: f32, f64"),
    ("max_pool(%a) {kernel = [9, 9]}", ["f32[1,1,4,4]"], "larger than the padded input"),
    ("max_pool(%a) {kernel = [2]}", ["f32[1,1,4,4]"], "kernel [2] must have 2 entries"),
    ("avg_pool(%a) {kernel = [2, 2]}", ["i32[1,1,4,4]"], "not a float"),
    ("add(%a, %b)", ["f32[2,3]", "f32[4]"], "shapes [2, 3], [4] do not broadcast"),
    ("add(%a, %b)", ["f32[2]", "i64[2]"], "operand types differ: f32, i64"),
    ("add(%a, %b)", [f"i8[2] {Q}", f"i8[2] {Q}"], "arithmetic on a quantized operand"),
    ("add(%a, %b)", ["bool[2]", "bool[2]"], "add takes number"),
    ("logical_and(%a, %b)", ["i8[2]", "i8[2]"], "logical_and takes bool"),
    ("where(%a, %b, %c)", ["i8[2]", "f32[2]", "f32[2]"], "condition is i8, not bool"),
    ("where(%a, %b, %c)", ["bool[2]", f"i8[2] {Q}", "i8[2] q(0.25, 3)"], "must have one quantization"),
    ("sigmoid(%a)", ["i8[2]"], "operand is i8, sigmoid takes f32"),
    ("relu(%a)", [f"i8[2] {Q}"], "dequantize it first"),
    ("prelu(%a, %b)", ["f32[2,3]", "f32[4]"], "slope [4] does not broadcast to [2, 3]"),
    ("softmax(%a) {axis = -1}", ["f32[2,3]"], "axis -1 is not one of 0..1"),
    ("softmax(%a) {axis = 1}", ["f64[2,3]"], "operand 0 is f64, not f32"),
    ("reduce_sum(%a) {axes = [0, 0]}", ["f32[2,3]"], "axes (0, 0) repeat one"),
    ("reduce_sum(%a) {axes = [2]}", ["f32[2,3]"], "axis 2 is not one of 0..1"),
    ("argmax(%a) {axis = 0}", ["f32[0]"], "has no elements"),
    ("layer_norm(%a, %b) {axis = 1}", ["f32[2,3]", "f32[2]"], "does not broadcast to [3]"),
    ("batch_norm(%a, %b, %b, %b, %b)", ["f32[2,3,4]", "f32[4]"], "has shape [4], not [3]"),
    ("reshape(%a) {shape = [7]}", ["f32[2,3]"], "[2, 3] has 6 elements, shape [7] 7"),
    ("reshape(%a) {shape = [6]}", ["i8[2,3] q([0.5, 0.25], [], axis=0)"], "breaks up axis 0"),
    ("transpose(%a) {perm = [0, 0]}", ["f32[2,3]"], "perm [0, 0] is no permutation"),
    ("concat(%a, %b) {axis = 0}", ["f32[2,3]", "f32[2,4]"], "differ outside axis 0"),
    ("concat(%a, %b) {axis = 0}", [f"i8[2] {Q}", "i8[2] q(0.25, 3)"], "requantize them to one"),
    ("slice(%a) {starts = [0], ends = [9], steps = [1]}", ["f32[4]"], "slice 0:9:1 leaves axis 0 of size 4"),
    ("slice(%a) {starts = [0], ends = [2], steps = [0]}", ["f32[4]"], "slice 0:2:0"),
    ("slice(%a) {starts = [0], ends = [-1], steps = [1]}", ["f32[4]"], "slice 0:-1:1"),
    ("pad(%a) {pads = [1, 1, 1]}", ["f32[4]"], "pads [1, 1, 1] must have 2 entries"),
    ('pad(%a) {pads = [4, 0], mode = "reflect"}', ["f32[4]"], "reflect pads [4, 0] are larger than axis 0"),
    ('pad(%a) {pads = [1, 0], mode = "mirror"}', ["f32[4]"], "mode 'mirror'"),
    ("pad(%a) {pads = [-3, -3]}", ["f32[4]"], "cut more than [4] has"),
    ("split(%a) {axis = 0, sizes = [1, 2]}", ["f32[4]"], "sizes [1, 2] do not add up"),
    ("expand(%a) {shape = [3]}", ["f32[2]"], "[2] does not broadcast to [3]"),
    ("tile(%a) {repeats = [2, 2]}", ["f32[2]"], "repeats [2, 2] must have 1 entries"),
    ("depth_to_space(%a) {block = 2}", ["f32[1,3,2,2]"], "3 channels are not a multiple of 4"),
    ("space_to_depth(%a) {block = 2}", ["f32[1,3,3,2]"], "image 3 x 2 is not a multiple of 2"),
    ("cast(%a) {dtype = !f32}", [f"i8[2] {Q}"], "dequantize it instead"),
    ("gather(%a, %b) {axis = 0}", ["f32[2]", "f32[1]"], "not plain integers"),
    ("one_hot(%a) {depth = 0, axis = 0}", ["i64[2]"], "depth 0 is not positive"),
    ("resize(%a) {sizes = [4], scales = [1.0, 2.0]}", ["f32[2]"], "are not 1 positive numbers"),
    ('resize(%a) {sizes = [4], scales = [2.0], mode = "area"}', ["f32[2]"], "mode 'area'"),
    ('resize(%a) {sizes = [4], scales = [2.0], mode = "linear"}', ["i8[2]"], "not a float"),
    ("quantize(%a) {quant = q([0.5, 0.5], [], axis=0)}", ["f32[3]"], "2 scales along axis 0"),
    ("dequantize(%a)", ["i8[3]"], "carries no quantization"),
    ("qgemm(%a, %b, %c, %d)", ["i8[2,3]", "i8[4,3]", "i32[3]", "f32[4]"], "bias is i32[3], not i32[4]"),
    ("qadd(%a, %b) {a_mult = 0.5, b_mult = 0.1}", ["i8[2]", "i8[2]"], "b_mult 0.1 is not a float32"),
    ("qconv2d(%a, %b, %c, %d)", ["i8[1,8,8,3]", "i8[4,3,3,2]", "i32[4]", "f32[4]"], "do not fit"),
]


@pytest.mark.parametrize(("call", "types", "message"), REFUSED, ids=[c + " " + " ".join(t) for c, t, _ in REFUSED])
def test_what_does_not_fit_is_refused(call: str, types: list[str], message: str) -> None:
    inputs = "\n".join(f"  input %{name}: {type}" for name, type in zip("abcd", types, strict=False))
    text = f"graph @m {{\n{inputs}\n  %y: f32[1] = {call}\n  output %y\n}}"
    with pytest.raises(QcompError) as caught:
        parse_graph(text)
    op = call.split("(")[0]
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{op} 'y': ") and "\n" not in str(caught.value)


def test_constant_indices_must_stay_inside() -> None:
    text = """graph @m {
      input %x: f32[3]
      const %i: i64[2] = [0, 3]
      %y: f32[2] = gather(%x, %i) {axis = 0}
      output %y
    }"""
    with pytest.raises(QcompError, match=r"indices 0\.\.3 leave axis 0 of size 3"):
        parse_graph(text)
