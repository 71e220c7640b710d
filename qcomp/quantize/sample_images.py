"""Samples from images: decode, resize, crop, normalize, lay out as the model's input wants it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from qcomp.errors import QcompError
from qcomp.quantize.inputs import InputSpec, shape_text

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")

# ImageNet's usual evaluation: a 224 crop from the middle of an image whose short side is 256.
_CROP_SHARE = 0.875
_DAMAGED = (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class ImageOptions:
    """How a pixel becomes an input value: (pixel − mean) / std, pixels being 0 to 255, one number or one a channel.

    `size`: (height, width) where the model leaves it open.  `resize`: "crop" takes the middle (87.5 %) of
    the image in the proportions of size, "stretch" takes all of it and gives up its proportions.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    size: tuple[int, int] | None = None
    resize: Literal["crop", "stretch"] = "crop"
    order: Literal["rgb", "bgr"] = "rgb"

    def __post_init__(self) -> None:
        for option, choices in (("resize", ("crop", "stretch")), ("order", ("rgb", "bgr"))):
            if getattr(self, option) not in choices:
                raise QcompError(f"image {option} {getattr(self, option)!r}", fix=f"use {' or '.join(choices)}")
        if not all(np.isfinite((*self.mean, *self.std))) or any(s == 0 for s in self.std):
            raise QcompError("image mean or std is not finite, or std is zero", fix="use for example 127.5 and 127.5")
        if self.std and max(abs(s) for s in self.std) < 1:
            raise QcompError(
                f"image std {self.std[0]:g} is in units of 0..1, but pixels are 0..255",
                fix="multiply image mean and std by 255",
            )


@dataclass(frozen=True)
class ImageSource:
    """Image files for a model with one input, one image a sample; made by `ImageSource.of`, which checks."""

    paths: tuple[Path, ...]
    spec: InputSpec
    options: ImageOptions
    layout: Literal["NCHW", "NHWC"]
    size: tuple[int, int]
    channels: int

    @staticmethod
    def of(where: str, paths: Sequence[Path], inputs: Sequence[InputSpec], options: ImageOptions) -> ImageSource:
        """QcompError if the model does not take one image of 1 or 3 channels and known size at a time."""
        if len(inputs) != 1:
            raise QcompError(f"images, but the model has {len(inputs)} inputs", where=where, fix="give an .npz")
        spec = inputs[0]
        place = f"{where}: model input {spec}"
        if len(spec.shape) != 4 or spec.shape[0] not in (1, None):
            raise QcompError("does not take one image at a time", where=place, fix="give arrays in an .npz")
        layout: Literal["NCHW", "NHWC"]
        if spec.shape[1] in (1, 3):
            layout, channels, sides = "NCHW", spec.shape[1], spec.shape[2:]
        elif spec.shape[3] in (1, 3):
            layout, channels, sides = "NHWC", spec.shape[3], spec.shape[1:3]
        else:
            raise QcompError("does not have 1 or 3 channels", where=place, fix="give arrays in an .npz")
        height, width = sides if options.size is None else options.size
        if height is None or width is None:
            raise QcompError("leaves the image size open", where=place, fix="give --image-size")
        for have, want in zip((height, width), sides, strict=True):
            if have < 1 or want not in (have, None):
                raise QcompError(
                    f"image size {height}×{width} does not fit", where=place, fix=f"the model takes {shape_text(sides)}"
                )
        for name, numbers in (("mean", options.mean), ("std", options.std)):
            if len(numbers) not in (1, channels):
                raise QcompError(
                    f"image {name} has {len(numbers)} numbers", where=place, fix=f"give 1 or {channels} numbers"
                )
        plain = set(options.mean) == {0.0} and set(options.std) == {1.0}
        if spec.dtype.kind != "f" and not (spec.dtype == np.uint8 and plain):
            raise QcompError(
                f"takes {spec.dtype}, not images{' with a mean and std' if spec.dtype == np.uint8 else ''}",
                where=place,
                fix="give arrays in an .npz",
            )
        return ImageSource(tuple(paths), spec, options, layout, (height, width), channels)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        for path in self.paths:
            yield {self.spec.name: self._read(path)}

    def place(self, i: int) -> str:
        return str(self.paths[i])

    def _read(self, path: Path) -> NDArray[Any]:
        try:
            with Image.open(path) as file:
                upright = ImageOps.exif_transpose(file)
                image = upright.convert("L" if self.channels == 1 else "RGB")
        except _DAMAGED as error:
            raise QcompError(f"cannot be read as an image ({error})", where=str(path), fix="repair it") from error
        pixels = np.asarray(self._resized(image)).reshape(*self.size, self.channels)
        if self.options.order == "bgr":
            pixels = pixels[:, :, ::-1]
        if self.spec.dtype.kind == "f":
            mean, std = np.asarray(self.options.mean, np.float32), np.asarray(self.options.std, np.float32)
            value: NDArray[Any] = ((pixels.astype(np.float32) - mean) / std).astype(self.spec.dtype)
        else:
            value = pixels
        if self.layout == "NCHW":
            value = value.transpose(2, 0, 1)
        return np.ascontiguousarray(value[None])

    def _resized(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if self.options.resize == "stretch":
            return image.resize((width, height), Image.Resampling.BICUBIC)
        # The largest box of the target's proportions, then the middle of it.
        scale = min(image.width / width, image.height / height) * _CROP_SHARE
        box_width, box_height = width * scale, height * scale
        left, top = (image.width - box_width) / 2, (image.height - box_height) / 2
        box = (left, top, left + box_width, top + box_height)
        return image.resize((width, height), Image.Resampling.BICUBIC, box=box)
