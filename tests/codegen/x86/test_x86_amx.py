"""Convolutions by AMX tiles give the integers of the direct definition: on the machine where it has AMX, and anywhere
with AVX512-VNNI and VBMI over a software model of the tile instructions."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_x86_conv import CHANNELS, Case, arrays, check, conv_cases, conv_shape
from x86_harness import HERE, Guarded, Image, Library, every_tiles
from x86_reference import conv_acc, requantize

from qcomp.codegen.c.vector.shapes import ConvShape, Plane, Requantization, Residual
from qcomp.codegen.c.x86.amx import amx_code, amx_or_vector_code, tiles_are_faster
from qcomp.codegen.c.x86.amx_tiling import amx_plan, depth_of, pixel_tilings
from qcomp.codegen.c.x86.isa import AVX512_VBMI, Isa
from qcomp.codegen.c.x86.schedule import parse_schedule
from qcomp.codegen.c.x86.search import tile_schedules
from qcomp.errors import QcompError
from qcomp.ir.halves import from_halves, to_halves

TABLE = tuple(255 - i for i in range(256))
BLOCKS = [(2, 1), (3, 1), (4, 1), (1, 2), (2, 2), (1, 3), (1, 4)]
"""Tiles of pixels x tiles of channels, as layers have them."""


def check_tiles(cases: list[Case], tiles: str) -> None:
    check(cases, AVX512_VBMI, amx_code, tiles, by_tiles)


def by_tiles(case: Case, isa: Isa) -> tuple[str, ...]:
    return tile_schedules()


@every_tiles
@settings(
    max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(cases=st.lists(conv_cases(), min_size=12, max_size=12))
def test_random_convolutions_equal_the_definition(tiles: str, cases: list[Case]) -> None:
    check_tiles(cases, tiles)


@every_tiles
def test_results_do_not_depend_on_the_schedule(tiles: str) -> None:
    shapes = [
        conv_shape(1, (1, 50), 130, 200, (1, 1)), conv_shape(2, (9, 9), 16, 200, (3, 3), pads=(1, 1, 1, 1)),
        conv_shape(1, (40, 40), 8, 24, (1, 1)), conv_shape(1, (6, 11), 32, 80, (3, 3), groups=4),
    ]  # fmt: skip
    picks = range(len(tile_schedules()))
    check_tiles([Case(s, Requantization(5, 100), 3, pick=pick) for s in shapes for pick in picks], tiles)


@every_tiles
def test_every_output_channel_count_and_line_length_is_covered(tiles: str) -> None:
    cases = [
        Case(conv_shape(1, (1, 1 + 3 * i), 9, outputs, (1, 1)), Requantization(3, 120, 4, 250, TABLE), i)
        for i, outputs in enumerate(CHANNELS)
    ]
    check_tiles(cases, tiles)


@every_tiles
def test_runs_of_every_length_up_to_three_tiles_of_bytes_are_covered(tiles: str) -> None:
    for first in range(1, 131, 26):
        check_tiles(
            [
                Case(conv_shape(1, (3, 5), length, 5, (2, 1)), Requantization(9), length)
                for length in range(first, first + 26)
            ],
            tiles,
        )


@every_tiles
def test_every_block_and_every_rest_of_blocks_is_covered(tiles: str) -> None:
    shapes = [conv_shape(1, (1, 15 * count), 20, outputs, (1, 1)) for count in range(1, 8)
              for outputs in (16, 30, 48, 61, 80, 130)]  # fmt: skip
    assert {(pixels, vectors) for shape in shapes for vectors, pixels in amx_plan(shape).panels} >= set(BLOCKS)
    rqs = [Requantization(200, dtype="f32" if i % 4 == 0 else "u8") for i in range(len(shapes))]
    check_tiles([Case(shape, rq, i) for i, (shape, rq) in enumerate(zip(shapes, rqs, strict=True))], tiles)


@every_tiles
def test_positions_in_the_halo_are_left_out(tiles: str) -> None:
    seven = conv_shape(3, (7, 7), 32, 40, (3, 3), pads=(1, 1, 1, 1))
    shapes = [
        seven, replace(seven, y=Plane(3, 7, 7, 40, (1, 2, 3, 4))), conv_shape(2, (9, 4), 16, 20, (5, 1)),
        conv_shape(2, (6, 20), 8, 16, (3, 3), extra=(2, 1)), conv_shape(2, (4, 3), 64, 64, (1, 1), extra=(0, 1)),
    ]  # fmt: skip
    assert [amx_plan(shape).tiles.pitch - amx_plan(shape).tiles.width for shape in shapes[:2]] == [2, 2]
    check_tiles([Case(shape, Requantization(0, 7), i) for i, shape in enumerate(shapes)], tiles)
    added = [Residual(replace(shape.y, halo=halo), 100, 0.7) for shape in shapes for halo in ((0,) * 4, (1, 0, 2, 3))]
    rqs = [Requantization(3, 99, residual=residual) for residual in added]
    check_tiles([Case(shapes[i // 2], rq, i) for i, rq in enumerate(rqs)], tiles)


@every_tiles
def test_a_residual_may_lie_where_the_results_go(tiles: str) -> None:
    case = Case(conv_shape(1, (7, 7), 24, 40, (1, 1)), Requantization(3, 90, 0, 255), 4)
    residual = Residual(case.shape.y, 17, 0.3)
    rq = replace(case.rq, residual=residual)
    weights, bias, mult, data = arrays(case)
    library = Library({"k": amx_code(case.shape, weights, bias, mult, rq, AVX512_VBMI, "k")}, AVX512_VBMI, tiles)
    x, y = Image(case.shape.x), Image(case.shape.y)
    x.inner[...] = data
    y.inner[...] = np.random.default_rng(4).integers(0, 256, y.inner.shape)
    expected = requantize(conv_acc(x.full, weights, bias, rq.x_zp, case.shape), mult, rq, y.inner.copy())
    library.run("k", [x.address, y.address, y.address])
    assert np.array_equal(y.inner, expected)


@every_tiles
@pytest.mark.parametrize("total", [2**22 - 1, 2**22, 1 - 2**22])
def test_accumulators_next_to_the_bound_of_float_bits_are_exact(tiles: str, total: int) -> None:
    shape, rq = conv_shape(1, (1, 5), 64, 16, (1, 1)), Requantization(0, 100)
    weights = np.full((16, 1, 1, 64), 127 if total > 0 else -127, np.int8)
    bias = np.full(16, total - 64 * 255 * int(weights.flat[0]), np.int32)
    mult = from_halves(*to_halves(np.linspace(2**-15, 2**-14, 16).astype(np.float32)))
    library = Library({"k": amx_code(shape, weights, bias, mult, rq, AVX512_VBMI, "k")}, AVX512_VBMI, tiles)
    x, y = Image(shape.x, fill=255), Image(shape.y)
    library.run("k", [x.address, y.address])
    assert np.array_equal(y.inner, requantize(conv_acc(x.full, weights, bias, 0, shape), mult, rq))


@every_tiles
@pytest.mark.parametrize("after", [False, True])
def test_nothing_is_read_before_a_buffer_or_far_behind_it(tiles: str, after: bool) -> None:
    shapes = [
        conv_shape(1, (1, 16 * count), length, 16 * vectors, (1, 1))
        for count, vectors, length in [(1, 1, 1), (3, 2, 65), (5, 1, 64), (7, 1, 20), (9, 2, 33), (3, 5, 130)]
    ] + [
        conv_shape(1, (7, 7), 20, 40, (3, 3), pads=(1, 1, 1, 1)), conv_shape(2, (9, 4), 15, 20, (5, 1)),
        conv_shape(1, (14, 14), 24, 40, (3, 3), (2, 2), pads=(1, 1, 0, 0)),
        conv_shape(1, (6, 21), 16, 20, (3, 3), dilations=(1, 2)), conv_shape(1, (5, 5), 32, 40, (3, 3), groups=2),
    ]  # fmt: skip
    codes, rq = {}, Requantization(0)
    for i, shape in enumerate(shapes):
        weights, bias, mult, _ = arrays(Case(shape, rq, i))
        codes[f"k{i}"] = amx_code(shape, weights, bias, mult, rq, AVX512_VBMI, f"k{i}")
    library = Library(codes, AVX512_VBMI, tiles)
    for i, shape in enumerate(shapes):
        weights, bias, mult, _ = arrays(Case(shape, rq, i))
        x, y = Guarded(shape.x, after), Image(shape.y)
        x.full[...] = np.random.default_rng(i).integers(0, 256, x.full.shape)
        full = Image(shape.x).full
        full[...] = x.full.reshape(full.shape)
        library.run(f"k{i}", [x.address, y.address])
        assert np.array_equal(y.inner, requantize(conv_acc(full, weights, bias, 0, shape), mult, rq)), shape


@every_tiles
def test_worst_case_products_neither_saturate_nor_wrap(tiles: str) -> None:
    shapes = [conv_shape(1, (1, 9), 2048, 70, (1, 1)), conv_shape(1, (4, 4), 512, 33, (3, 3), pads=(1, 1, 1, 1))]
    check_tiles([Case(s, Requantization(zp, 100), zp, True) for s in shapes for zp in (0, 255)], tiles)


@every_tiles
def test_layers_of_residual_networks(tiles: str) -> None:
    check_tiles([
        Case(conv_shape(2, (64, 64), 3, 64, (7, 7), (2, 2), pads=(3, 3, 3, 3)), Requantization(114, 0, 0, 255), 1),
        Case(conv_shape(1, (1, 1), 2048, 1000, (1, 1)), Requantization(7, dtype="f32"), 2),
        Case(conv_shape(5, (1, 197), 64, 48, (1, 1)), Requantization(128, 128, 0, 255), 3),
        Case(conv_shape(1, (14, 14), 256, 512, (1, 1), (2, 2)), Requantization(3, 128, 0, 255), 4),
        Case(conv_shape(1, (56, 56), 64, 64, (3, 3), pads=(1, 1, 1, 1), extra=(0, 1)), Requantization(3, 128), 5),
        Case(conv_shape(1, (14, 14), 96, 128, (3, 3), pads=(1, 1, 1, 1), groups=4), Requantization(3, 128), 6),
    ], tiles)  # fmt: skip


@pytest.mark.skipif(AVX512_VBMI not in HERE, reason="needs AVX512-VNNI and VBMI")
def test_a_task_configures_once_and_multiplies_as_often_as_planned() -> None:
    shapes = [conv_shape(1, (7, 7), 512, 512, (3, 3), pads=(1, 1, 1, 1)), conv_shape(1, (56, 56), 64, 64, (1, 1)),
              conv_shape(1, (9, 16), 33, 40, (3, 3)), conv_shape(1, (1, 5), 512, 1000, (1, 1))]  # fmt: skip
    library = check([Case(shape, Requantization(1), 0) for shape in shapes], AVX512_VBMI, amx_code, "model", by_tiles)
    counts = (ctypes.c_int64 * 5)()
    library.handle.amx_read_counts(counts)
    configs, loads, products, stores, releases = counts
    tasks = sum(code.tasks for code in library.codes.values())
    assert tasks > len(shapes)
    assert (configs, releases) == (tasks, tasks)
    assert products == sum(amx_plan(shape).products for shape in shapes)
    assert stores == sum(amx_plan(shape).products // amx_plan(shape).depth.products for shape in shapes)


@pytest.mark.parametrize("length", [*range(1, 200), 576, 1281, 4608])
def test_pieces_of_a_run_fit_in_tiles_and_reach_less_than_64_bytes_past_it(length: int) -> None:
    depth = depth_of(3, length)
    assert depth.bytes % 4 == 0 and 0 < depth.bytes <= 64
    assert depth.chunks == -(-length // 64) and 0 <= depth.chunks * depth.bytes - length < 64


@given(case=conv_cases())
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_tilings_visit_every_pixel_once_and_read_inside_the_plane(case: Case) -> None:
    shape = case.shape
    y, x = shape.y, shape.x
    start = shape.pads[0] * x.row_stride + shape.pads[1] * x.channels
    added = case.rq.residual.plane if case.rq.residual else None
    for tiles in pixel_tilings(shape, added):
        found = {}
        for line in range(tiles.lines):
            image, row = divmod(line, tiles.per_image)
            for i in range(tiles.length):
                at = image * tiles.x.image + row * tiles.x.line + i * tiles.x_step
                assert 0 <= x.interior - start + at < x.elements
                if i % tiles.pitch < tiles.width:
                    column = i % tiles.pitch * y.channels
                    to = image * tiles.y.image + row * tiles.y.line + i // tiles.pitch * tiles.y.row + column
                    assert to not in found
                    found[to] = at
                    if added is not None:
                        assert tiles.residual is not None
                        place = image * tiles.residual.image + row * tiles.residual.line
                        place += i // tiles.pitch * tiles.residual.row + column
                        n, rest = divmod(to, y.image_stride)
                        h, rest = divmod(rest, y.row_stride)
                        assert place == n * added.image_stride + h * added.row_stride + rest
        expected = {
            n * y.image_stride + i * y.row_stride + j * y.channels:
            n * x.image_stride + i * shape.strides[0] * x.row_stride + j * shape.strides[1] * x.channels
            for n in range(y.batch) for i in range(y.height) for j in range(y.width)
        }  # fmt: skip
        assert found == expected


@pytest.mark.parametrize(("size", "most"), [(56, 1.05), (28, 1.11), (14, 1.15), (7, 1.35)])
def test_three_by_three_layers_waste_few_products(size: int, most: float) -> None:
    shape = conv_shape(1, (size, size), 256, 256, (3, 3), pads=(1, 1, 1, 1))
    plan = amx_plan(shape)
    assert plan.products * 16 * 16 * 64 <= most * shape.macs
    assert plan.products * 16 >= 0.8 * plan.cycles  # of the time the multiplier works, as estimated


def test_products_of_a_single_row_stay_with_vectors_and_large_ones_go_to_tiles() -> None:
    def chosen(shape: ConvShape) -> bool:
        return tiles_are_faster(shape, None, AVX512_VBMI)

    assert not chosen(conv_shape(1, (1, 1), 2048, 1000, (1, 1)))
    assert not chosen(conv_shape(1, (2, 2), 4, 4, (1, 1)))
    assert chosen(conv_shape(1, (14, 14), 256, 256, (3, 3), pads=(1, 1, 1, 1)))
    assert chosen(conv_shape(1, (56, 56), 64, 256, (1, 1)))


@pytest.mark.parametrize(("text", "small", "large"), [
    ("", "vnni", "amx"), ("tiles=amx", "amx", "amx"), ("tiles=amx first=lines tasks=8", "amx", "amx"),
    ("first=lines", "vnni", "vnni"), ("vectors=4", "vnni", "vnni"),
])  # fmt: skip
def test_a_schedule_decides_between_tiles_and_vectors(text: str, small: str, large: str) -> None:
    shapes = conv_shape(1, (2, 2), 4, 64, (1, 1)), conv_shape(1, (28, 28), 64, 64, (3, 3), pads=(1, 1, 1, 1))
    for shape, expected in zip(shapes, (small, large), strict=True):
        weights, bias, mult, _ = arrays(Case(shape, Requantization(1), 0))
        arguments = shape, weights, bias, mult, Requantization(1), AVX512_VBMI, "k"
        assert amx_or_vector_code(*arguments, parse_schedule(text)).kernel.split(" ")[0] == expected


@pytest.mark.parametrize("text", ["tiles=amx vectors=4", "tiles=amx rows=6*9+2", "tiles=amx line=49"])
def test_tiles_are_not_cut_by_a_schedule(text: str) -> None:
    shape = conv_shape(1, (7, 7), 16, 64, (1, 1))
    weights, bias, mult, _ = arrays(Case(shape, Requantization(1), 0))
    with pytest.raises(QcompError, match="does not fit the layer: tiles are cut by the cost model"):
        amx_or_vector_code(
            shape, weights, bias, mult, Requantization(1), AVX512_VBMI, "k", parse_schedule(text)
        )
