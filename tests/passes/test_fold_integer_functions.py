from __future__ import annotations

import numpy as np
import pytest

from qcomp.ir import parse_graph
from qcomp.passes.fold_integer_functions import FoldIntegerFunctions
from qcomp.passes.manager import Checker, run_passes


def table(function) -> list[int]:
    return [int(v) for v in np.clip(np.rint(function(np.arange(-128, 128.0))), -128, 127)]


SIGMOID = table(lambda q: 256 / (1 + np.exp(-q / 16)) - 128)
NEGATIVE = table(lambda q: -q)


def graph(body: str) -> str:
    return f"graph @m {{\ninput %x: i8[64,4] q(0.0625, 0)\ninput %z: i8[64,4] q(0.0625, 0)\n{body}\noutput %y\n}}"


MULT = float(np.float32(1 / 256))


def test_a_product_with_its_own_sigmoid_is_one_table(rewritten):
    every = np.arange(-128, 128)
    gate = np.array(SIGMOID) + 128
    expected = [int(v) for v in np.clip(np.rint((every * gate).astype(np.float32) * np.float32(MULT)), -128, 127)]
    rewritten(
        FoldIntegerFunctions(),
        graph(f"""const %s: i8[256] = {SIGMOID}
                  %g: i8[64,4] q(0.00390625, -128) = table(%x, %s)
                  %y: i8[64,4] q(0.0625, 0) = qmul(%x, %g) {{b_zp = -128, mult = {MULT}}}"""),
        graph(f"""const %table: i8[256] = {expected}
                  %y: i8[64,4] q(0.0625, 0) = table(%x, %table)"""),
    )


def ops_after(body: str) -> list[str]:
    before = parse_graph(graph(body))
    return [n.op.name for n in run_passes(before, [FoldIntegerFunctions()], check=Checker.random(before, samples=4))]


def test_tables_of_tables_a_last_table_and_clamps_take_part():
    body = f"""const %s: i8[256] = {SIGMOID}
               const %n: i8[256] = {NEGATIVE}
               %a: i8[64,4] q(0.5, 0) = table(%x, %n)
               %b: i8[64,4] q(0.5, 0) = table(%a, %s)
               %y: i8[64,4] q(0.5, 0) = qadd(%b, %a, %s) {{a_zp=3, a_mult=0.5, b_mult=-0.25, lo=-100, hi=20}}"""
    assert ops_after(body) == ["table", "table"]


def test_a_sum_with_one_number_is_one_table():
    body = """const %c: i8[1] = [17]
              %y: i8[64,4] q(0.5, 0) = qadd(%c, %x) {a_mult = 0.5, b_mult = 0.25}"""
    assert ops_after(body) == ["table"]


def test_a_product_of_two_tensors_stays(rewritten):
    rewritten(FoldIntegerFunctions(), graph(f"%y: i8[64,4] q(0.5, 0) = qmul(%x, %z) {{mult = {MULT}}}"), None)


def test_a_sum_with_a_number_for_each_channel_stays(rewritten):
    body = """const %c: i8[4] = [1, 2, 3, 4]
              %y: i8[64,4] q(0.5, 0) = qadd(%x, %c) {a_mult = 0.5, b_mult = 0.25}"""
    rewritten(FoldIntegerFunctions(), graph(body), None)


@pytest.mark.parametrize("operand, result", [("i16", "i16"), ("i16", "i8"), ("i8", "i16")])
def test_a_sum_of_a_tensor_with_itself_stays_where_int16_takes_part(rewritten, operand, result):
    text = f"""graph @m {{
        input %x: {operand}[64,4] q(0.0625, 0)
        %y: {result}[64,4] q(0.125, 0) = qadd(%x, %x) {{a_mult = 0.5, b_mult = 0.5, dtype = !{result}}}
        output %y
    }}"""
    rewritten(FoldIntegerFunctions(), text, None)
