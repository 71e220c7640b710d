"""Rendered text with known content: words, fonts, lines and whole pages, the same for the same seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from qcomp.zoo import packages

# DejaVu sans, serif and mono, and STIX, which looks like Times; matplotlib carries them all.
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol",
    "STIXGeneralItalic", "STIXGeneralBolIta",
)  # fmt: skip

WORDS = tuple(
    """account address almond amber anchor apricot arrival autumn balance basket bicycle blanket bottle
    branch bridge bright bronze button cabinet camera candle canvas carbon carpet castle cedar century
    channel chapter cherry circle citizen climate cloud cobalt coffee collect column compass concert
    copper corner cotton country crystal curtain customer daily damage danger decade delivery density
    desert diamond dinner distance doctor double dragon durable eagle early eastern echo editor effort
    eleven empty energy engine evening exact fabric factory falcon family feather fiction figure finger
    flight flower forest formula fossil fragile freight friend frozen garden gentle giraffe glacier
    global golden granite gravity grocery guitar habit hammer harbor harvest hazel height helmet hidden
    history holiday honey horizon hotel hunger icicle image index industry insect island ivory jacket
    jasmine journal journey jungle justice kernel kettle kitchen knight ladder lantern laundry leather
    lemon letter library light liquid lumber machine magnet maple marble market meadow measure medal
    melody metal midnight mineral mirror modern monitor morning mountain museum narrow nature needle
    network nickel northern notice number oatmeal object ocean office olive orange orbit orchard oxygen
    packet palace paper parcel pencil pepper perfect piano picture pigeon pillow planet plastic pocket
    polar powder present profit public purple puzzle quality quarter quick quiet rabbit radio railway
    raven record region repair ribbon river rocket rubber saddle salmon sample sandal satin savings
    scale school science season second shadow signal silver simple sketch sleeve smooth socket soldier
    south spider spring square stable station stone storm summer sunset surface switch symbol tablet
    talent teacher temple theory thunder ticket timber tomato total travel triangle tunnel turtle twelve
    uniform update urban valley vanilla velvet vessel village violin vision voyage walnut water weather
    weekend western whisper window winter wisdom wonder yellow zebra""".split()  # noqa: SIM905 - a list of 250 literals is harder to read
)


@dataclass(frozen=True)
class Page:
    """A page of text lines: RGB image and, for every line, its box (left, top, right, bottom) in pixels."""

    image: Image.Image
    boxes: tuple[tuple[int, int, int, int], ...]


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """One of FONTS in a size given in pixels."""
    path = packages.resource(
        packages.python_package("matplotlib"), f"matplotlib/mpl-data/fonts/ttf/{name}.ttf"
    )
    return ImageFont.truetype(str(path), size)


def random_text(random: np.random.Generator, longest: int = 26) -> str:
    """One to three words and, in a third of the texts, a number; at most ``longest`` characters."""
    parts: list[str] = []
    for _ in range(int(random.integers(1, 4))):
        word = WORDS[int(random.integers(len(WORDS)))]
        parts.append([word, word.capitalize(), word.upper()][int(random.choice(3, p=[0.6, 0.3, 0.1]))])
    if random.random() < 1 / 3:
        parts.append(str(int(random.integers(10, 100_000))))
    while len(parts) > 1 and len(" ".join(parts)) > longest:
        parts.pop(int(random.integers(len(parts))))
    return " ".join(parts)


def line(random: np.random.Generator) -> tuple[Image.Image, str]:
    """A picture (RGB) of one line of text as a camera or scanner would see it, and the text.

    Random font, size, colours, rotation by up to 2 degrees, blur and noise.
    """
    text = random_text(random)
    face = font(FONTS[int(random.integers(len(FONTS)))], int(random.integers(18, 41)))
    paper, ink = _paper_and_ink(random)
    left, top, right, bottom = face.getbbox(text)
    margin_x, margin_y = int(random.integers(4, 11)), int(random.integers(3, 8))
    size = (int(right - left) + 2 * margin_x, int(bottom - top) + 2 * margin_y)
    image = Image.new("RGB", size, paper)
    ImageDraw.Draw(image).text((margin_x - left, margin_y - top), text, fill=ink, font=face)
    angle = float(random.uniform(-2, 2))
    image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=paper)
    return degrade(image, random, blur=1.2, noise=18.0), text


def page(random: np.random.Generator, side: int, sizes: tuple[int, int] = (16, 34)) -> Page:
    """A square page of lines of text in different fonts and sizes, below each other; none touches another."""
    paper, ink = _paper_and_ink(random)
    image = Image.new("RGB", (side, side), paper)
    draw = ImageDraw.Draw(image)
    boxes: list[tuple[int, int, int, int]] = []
    top = int(random.integers(20, 60))
    while True:
        face = font(FONTS[int(random.integers(len(FONTS)))], int(random.integers(sizes[0], sizes[1] + 1)))
        text = random_text(random, longest=30)
        box = face.getbbox(text)
        # A line is as high as its font, also where it has no tall letters: so people draw boxes around lines.
        upper, lower = face.getbbox("Ag")[1::2]
        width, height = int(box[2] - box[0]), int(lower - upper)
        if top + height + 20 > side:
            return Page(image, tuple(boxes))
        if width + 40 < side:
            left = int(random.integers(20, side - width - 19))
            draw.text((left - box[0], top - upper), text, fill=ink, font=face)
            boxes.append((left, top, left + width, top + height))
            top += height + int(random.integers(18, 60))


def degrade(image: Image.Image, random: np.random.Generator, blur: float, noise: float) -> Image.Image:
    """Gaussian blur of a radius up to ``blur`` pixels, noise of a deviation up to ``noise`` grey levels."""
    image = image.filter(ImageFilter.GaussianBlur(float(random.uniform(0, blur))))
    pixels = np.asarray(image, np.float64)
    pixels = pixels + random.normal(0, random.uniform(0, noise), pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _paper_and_ink(random: np.random.Generator) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Light paper and dark ink, or in a quarter of the pictures the reverse."""
    light = random.integers(170, 256, 3)
    dark = random.integers(0, 90, 3)
    if random.random() < 0.25:
        light, dark = dark, light
    return (int(light[0]), int(light[1]), int(light[2])), (int(dark[0]), int(dark[1]), int(dark[2]))
