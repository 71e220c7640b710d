"""Samples: the data that a model is calibrated or compared on, one at a time.

DATA is an .npz (its keys are the input names), an .npy (for a model of one input), a folder of these, or an
image or a folder of images.  The first axis of an array counts samples.  What can be checked without reading
the values (keys, shapes, types) is checked at once, the values themselves when their turn comes; every error
names the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import QcompError
from qcomp.quantize.inputs import InputSpec, check_headers, only_input
from qcomp.quantize.onnxruntime_session import RunRefused
from qcomp.quantize.sample_images import IMAGE_SUFFIXES, ImageOptions, ImageSource
from qcomp.quantize.sample_sources import ARRAY_SUFFIXES, ArraySource, ListSource, Sample, Source, open_array_file


@dataclass(frozen=True)
class Samples:
    """A sample set over one or more sources; iterating reads it anew each time, one source after the other.

    `unused`: keys of the data that are no model inputs, such as labels.
    """

    inputs: tuple[InputSpec, ...]
    sources: tuple[Source, ...]
    unused: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def __iter__(self) -> Iterator[Sample]:
        for source in self.sources:
            yield from source

    def place(self, i: int) -> str:
        """What a sample is called in errors: the file that it is from, and its number there."""
        for source in self.sources:
            if i < len(source):
                return source.place(i)
            i -= len(source)
        raise IndexError(i)

    def refused(self, i: int, sample: Mapping[str, NDArray[Any]], error: RunRefused) -> QcompError:
        """What to say of a sample that the model cannot be run on, though it fits the inputs."""
        held = [
            f"{name} holds {array.min()} to {array.max()}"
            for name, array in sample.items()
            if array.size and array.dtype.kind in "iu"
        ]
        values = f" (of indices, whether the model has so many: {', '.join(held)})" if held else ""
        return QcompError(error.reason, where=self.place(i), fix=f"check its values{values}")


Data = Samples | str | Path | NDArray[Any] | Mapping[str, NDArray[Any]] | Sequence[Mapping[str, NDArray[Any]]]


def samples_of(
    data: Data,
    inputs: Sequence[InputSpec],
    images: ImageOptions | None = None,
    where: str = "samples",
) -> Samples:
    """Samples from whatever a caller has.

    An array (for one input) or arrays by input name: the first axis counts samples.  A list of dictionaries: each
    holds the arrays of one run, in the shapes that the model states.  A path: see `load_samples`.  Samples: the
    same.  QcompError, beginning with `where`, if the data does not fit the inputs.
    """
    specs = tuple(inputs)
    if isinstance(data, Samples):
        return data
    if isinstance(data, (str, Path)):
        return load_samples(data, specs, images)
    if isinstance(data, (list, tuple)) and all(isinstance(sample, Mapping) for sample in data):
        keys = {str(key) for sample in data for key in sample}
        return Samples(specs, (ListSource(where, data, specs),), tuple(sorted(keys - {spec.name for spec in specs})))
    if isinstance(data, np.ndarray):
        data = {only_input(where, specs).name: data}
    if not isinstance(data, Mapping) or not all(isinstance(value, np.ndarray) for value in data.values()):
        raise QcompError(
            f"{type(data).__name__} is not sample data",
            where=where,
            fix="give a numpy array, a dictionary from input name to array, a list of these, or a path",
        )
    count = check_headers(where, specs, {str(key): (array.shape, array.dtype) for key, array in data.items()})
    names = {spec.name for spec in specs}
    source = ArraySource(where, {name: data[name] for name in names}, specs, count)
    return Samples(specs, (source,), tuple(sorted(str(key) for key in data if key not in names)))


def load_samples(path: str | Path, inputs: Sequence[InputSpec], images: ImageOptions | None = None) -> Samples:
    """Samples from an .npz, an .npy, a folder of these, an image, or a folder of images.

    Files of a folder, searched with its subfolders, come in the order of their names.  `images` says how images
    become inputs.  QcompError if nothing usable is there, or if a file does not fit the model's inputs.
    """
    place, specs = Path(path), tuple(inputs)
    if not place.exists():
        raise QcompError("no such file or folder", where=str(path), fix="give an .npz, an .npy or a folder")
    if place.is_dir():
        files = sorted(file for file in place.rglob("*") if file.is_file() and not file.name.startswith("."))
    else:
        files = [place]
    arrays = [file for file in files if file.suffix.lower() in ARRAY_SUFFIXES]
    pictures = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if arrays and pictures:
        raise QcompError("holds both arrays and images", where=str(path), fix="put them into two folders")
    if pictures:
        return Samples(specs, (ImageSource.of(str(path), pictures, specs, images or ImageOptions()),))
    if not arrays:
        raise QcompError(
            "holds no samples", where=str(path), fix=f"give {', '.join((*ARRAY_SUFFIXES, *IMAGE_SUFFIXES))} files"
        )
    opened = [open_array_file(file, specs) for file in arrays]
    unused = {key for _, keys in opened for key in keys}
    return Samples(specs, tuple(source for source, _ in opened), tuple(sorted(unused)))
