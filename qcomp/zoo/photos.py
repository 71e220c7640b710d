"""Real photographs: 96 with ImageNet labels to judge by, 64 others to calibrate with.

The labelled ones are 20 ImageNet validation pictures (foolbox), 3 of scikit-image and 73 cut-out photos of a
drawing program's stamps (Debian's tuxpaint-stamps-default) whose file names are ImageNet classes.  The stamps
to calibrate with show other things; a third of them stand on a texture or scene of scikit-image instead of
white, which brings the statistics nearer to whole photographs.  No picture is in both sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from qcomp.errors import QcompError
from qcomp.zoo import cache, packages
from qcomp.zoo.case import Array

SIDE = 224
RESIZED_SIDE = 256
CALIBRATION_SAMPLES = 64

# scikit-image's cat, cup and launch, with every ImageNet class that names what they show.
SCENES: dict[str, tuple[int, ...]] = {
    "chelsea.png": (281, 282, 285),
    "coffee.png": (967, 504),
    "rocket.jpg": (657, 744),
}

# Stamps whose file name is an ImageNet class; chosen by name, before any model saw them.
STAMPS: dict[str, tuple[int, ...]] = {
    "animals/amphibians/frog": (30, 32),
    "animals/birds/crowned_crane": (134,),
    "animals/birds/duck": (97,),
    "animals/birds/gander": (99,),
    "animals/birds/hen": (8,),
    "animals/birds/ostrich": (9,),
    "animals/birds/peacock": (84,),
    "animals/birds/pelican": (144,),
    "animals/birds/penguin": (145,),
    "animals/birds/pink_flamingo": (130,),
    "animals/birds/rainbow-lorikeet": (90,),
    "animals/birds/rooster": (7,),
    "animals/birds/tucan": (96,),
    "animals/birds/vulture": (23,),
    "animals/fish/lionfish": (396,),
    "animals/fish/lobster": (122, 123),
    "animals/insects/Brown_slug": (114,),
    "animals/insects/Woodlouse": (126,),
    "animals/insects/bee": (309,),
    "animals/insects/fly": (308,),
    "animals/insects/grasshopper": (311, 312),
    "animals/insects/mantis": (315,),
    "animals/lizards/iguana": (39,),
    "animals/mammals/apes/chimp": (367,),
    "animals/mammals/apes/gorilla": (366,),
    "animals/mammals/aquatic/orca": (148,),
    "animals/mammals/aquatic/otter": (360,),
    "animals/mammals/aquatic/sea_lion": (150,),
    "animals/mammals/badger": (362,),
    "animals/mammals/bears/bear": (294, 295),
    "animals/mammals/bears/european-bear": (294,),
    "animals/mammals/bears/toys/edward_bear": (850,),
    "animals/mammals/bovines/bison": (347,),
    "animals/mammals/bovines/ram": (348, 349),
    "animals/mammals/camel/dromedary": (354,),
    "animals/mammals/cats/lion": (291,),
    "animals/mammals/cats/tiger": (292,),
    "animals/mammals/dogs/dingo": (273,),
    "animals/mammals/dogs/fox": (277, 278),
    "animals/mammals/elephant": (385, 386),
    "animals/mammals/equines/zebra": (340,),
    "animals/mammals/ferret": (358, 359),
    "animals/mammals/hippopotamus": (344,),
    "animals/mammals/pig": (341,),
    "animals/mammals/rodents/beaver": (337,),
    "animals/mammals/rodents/marmot": (336,),
    "animals/mammals/rodents/squirrel": (335,),
    "animals/mammals/wildboar": (342,),
    "animals/marsupials/koala": (105,),
    "animals/marsupials/wombat": (106,),
    "food/fruit/apple_granny_smith": (948,),
    "food/fruit/banana": (954,),
    "food/fruit/lemon": (951,),
    "food/fruit/orange": (950,),
    "food/fruit/pineapple": (953,),
    "food/fruit/pomegranate": (957,),
    "food/fruit/strawberry": (949,),
    "food/vegetables/broccoli": (937,),
    "food/vegetables/corn": (987, 998),
    "food/vegetables/mushroom": (947, 992, 997),
    "food/vegetables/pepper": (945,),
    "hobbies/binoculars": (447,),
    "hobbies/camera_35mm": (759,),
    "hobbies/music/string/cello": (486,),
    "hobbies/music/string/guitar_classical": (402,),
    "hobbies/music/string/violin": (889,),
    "household/dishes/teapot": (849,),
    "household/toilet": (861,),
    "medical/stethoscope": (823,),
    "sports/basketball": (430,),
    "sports/soccer": (805,),
    "vehicles/emergency/firetruck": (555,),
    "vehicles/flight/planes/747": (404,),
}

# Pictures to calibrate with: 8 whole scenes of scikit-image and 56 stamps of things that are not in STAMPS.
CALIBRATION_SCENES = (
    "astronaut.png", "brick.png", "grass.png", "gravel.png",
    "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg",
)  # fmt: skip
CALIBRATION_STAMPS = (
    "animals/birds/adelaide-rosella", "animals/birds/blackbird", "animals/birds/cuckoo",
    "animals/birds/heron_greatblue", "animals/birds/lark", "animals/birds/nandou", "animals/birds/owl",
    "animals/birds/pigeon", "animals/birds/quetzal", "animals/birds/silver-gull", "animals/birds/turkey",
    "animals/fish/butterflyfish", "animals/fish/coraltrout", "animals/fish/seahorse",
    "animals/insects/hornet", "animals/insects/xanthia", "animals/mammals/apes/tamarin_emperor",
    "animals/mammals/aquatic/dolphin", "animals/mammals/aquatic/whale", "animals/mammals/bovines/cow",
    "animals/mammals/bovines/gnu-stand", "animals/mammals/bovines/goat", "animals/mammals/bovines/sheep",
    "animals/mammals/bovines/yak", "animals/mammals/deer/caribou", "animals/mammals/deer/doe",
    "animals/mammals/dogs/dog", "animals/mammals/equines/donkey", "animals/mammals/giraffe",
    "animals/mammals/rhino_black", "animals/mammals/rodents/capybara", "animals/mammals/rodents/rat",
    "food/fruit/apricot", "food/fruit/avocado", "food/fruit/grapes", "food/fruit/kiwi", "food/fruit/mango",
    "food/nuts/walnut", "food/spices/ginger", "food/vegetables/carrot", "food/vegetables/garlic",
    "food/vegetables/onion", "food/vegetables/potato", "food/vegetables/tomato", "household/Lightbulb",
    "household/rubberduck", "household/tools/cementmixer", "hobbies/music/percussion/drumkit",
    "plants/flowers/anemone_red", "plants/flowers/iris", "plants/flowers/rose", "plants/trees/holm_oak",
    "plants/trees/pinecone", "town/monuments/inukshuk-photo", "vehicles/auto/sedan",
    "vehicles/masstransit/green_korean_bus",
)  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """A picture (RGB) and the ImageNet classes, 0 to 999, that are right for it; none without a label."""

    source: str
    image: Image.Image
    classes: tuple[int, ...] = ()


def class_names() -> list[str]:
    """The 1,000 ImageNet class names in the order of a classifier's outputs, first synonym of each."""
    folder = packages.resource(packages.python_package("timm"), "timm/data/_info")
    lines = (folder / "imagenet_synset_to_lemma.txt").read_text("utf-8").splitlines()
    lemmas = dict(line.split("\t", 1) for line in lines)
    synsets = (folder / "imagenet_synsets.txt").read_text("utf-8").split()
    return [lemmas[synset].split(",")[0].strip() for synset in synsets]


def labelled() -> tuple[list[Photo], list[str]]:
    """The labelled photos, always in the same order, and notes on what this machine lacks."""
    photos = [
        Photo(path.name, Image.open(path).convert("RGB"), (int(path.stem.rsplit("_", 1)[1]),))
        for path in sorted(_foolbox().glob("imagenet_*.jpg"))
    ]
    scenes = _scenes()
    photos += [Photo(name, Image.open(scenes / name).convert("RGB"), right) for name, right in SCENES.items()]
    stamps, notes = _stamps()
    if stamps is not None:
        photos += [
            Photo(name, _on(_white(), stamps / f"{name}.png"), right) for name, right in STAMPS.items()
        ]
    return photos, notes


def calibration() -> tuple[list[Photo], list[str]]:
    """64 photos without labels, none of them among :func:`labelled`, and notes as there."""
    folder = _scenes()
    scenes = [Image.open(folder / name).convert("RGB") for name in CALIBRATION_SCENES]
    photos = [Photo(name, image) for name, image in zip(CALIBRATION_SCENES, scenes, strict=True)]
    stamps, notes = _stamps()
    random = np.random.default_rng(64)
    if stamps is None:
        while len(photos) < CALIBRATION_SAMPLES:
            index = len(photos) % len(scenes)
            photos.append(Photo(CALIBRATION_SCENES[index], _random_crop(scenes[index], random)))
        return photos, notes
    for number, name in enumerate(CALIBRATION_STAMPS):
        ground = _random_crop(scenes[number % len(scenes)], random) if number % 3 == 0 else _white()
        photos.append(Photo(name, _on(ground, stamps / f"{name}.png")))
    return photos, notes


def centre(photo: Photo) -> Image.Image:
    """The usual view of an ImageNet classifier: shorter side to 256, the middle 224 x 224."""
    image = _resize_shorter(photo.image, RESIZED_SIDE)
    return _crop(image, (image.width - SIDE) // 2, (image.height - SIDE) // 2)


def ten_views(photo: Photo) -> list[Image.Image]:
    """Four corners and the centre, 224 x 224 each, and their mirror images."""
    image = _resize_shorter(photo.image, RESIZED_SIDE)
    right, bottom = image.width - SIDE, image.height - SIDE
    corners = [(right // 2, bottom // 2), (0, 0), (right, 0), (0, bottom), (right, bottom)]
    crops = [_crop(image, left, top) for left, top in corners]
    return [view for crop in crops for view in (crop, crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT))]


def to_tensor(images: list[Image.Image], mean: float, scale: float) -> Array:
    """float32 [n, 3, height, width] of (pixel - mean) / scale, channels in the order red, green, blue."""
    tensor = np.empty((len(images), 3, images[0].height, images[0].width), np.float32)
    for row, image in zip(tensor, images, strict=True):
        row[:] = np.asarray(image, np.float32).transpose(2, 0, 1)
    tensor -= np.float32(mean)
    tensor /= np.float32(scale)
    return tensor


def _foolbox() -> Path:
    return packages.resource(packages.python_package("foolbox"), "foolbox/data")


def _scenes() -> Path:
    return packages.resource(packages.python_package("scikit-image"), "skimage/data")


def _stamps() -> tuple[Path | None, list[str]]:
    try:
        package = packages.debian_package("tuxpaint-stamps-default")
    except QcompError as error:
        cache.progress(f"{error}; going on with fewer photos")
        return None, [
            f"only {20 + len(SCENES)} labelled photos instead of 96, and calibration from crops of "
            f"{len(CALIBRATION_SCENES)} scenes: {error}"
        ]
    return packages.resource(package, "usr/share/tuxpaint/stamps"), []


def _white() -> Image.Image:
    return Image.new("RGB", (RESIZED_SIDE, RESIZED_SIDE), "white")


def _on(ground: Image.Image, stamp: Path) -> Image.Image:
    """A cut-out, as large as fits, in the middle of a 256 x 256 ground."""
    cutout = Image.open(stamp).convert("RGBA")
    scale = 0.9 * RESIZED_SIDE / max(cutout.size)
    size = (max(1, round(cutout.width * scale)), max(1, round(cutout.height * scale)))
    cutout = cutout.resize(size, Image.Resampling.BICUBIC)
    picture = ground.copy()
    picture.paste(cutout, ((RESIZED_SIDE - size[0]) // 2, (RESIZED_SIDE - size[1]) // 2), cutout)
    return picture


def _random_crop(image: Image.Image, random: np.random.Generator) -> Image.Image:
    side = int(random.integers(RESIZED_SIDE, min(image.size) + 1))
    left = int(random.integers(0, image.width - side + 1))
    top = int(random.integers(0, image.height - side + 1))
    crop = image.crop((left, top, left + side, top + side))
    return crop.resize((RESIZED_SIDE, RESIZED_SIDE), Image.Resampling.BICUBIC)


def _resize_shorter(image: Image.Image, side: int) -> Image.Image:
    scale = side / min(image.size)
    size = (max(side, round(image.width * scale)), max(side, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _crop(image: Image.Image, left: int, top: int) -> Image.Image:
    return image.crop((left, top, left + SIDE, top + SIDE))
