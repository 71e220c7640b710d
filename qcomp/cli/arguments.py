"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcomp.errors import QcompError

if TYPE_CHECKING:
    from qcomp.ir.graph import Graph
    from qcomp.quantize.check import Finding
    from qcomp.quantize.samples import Samples

# Or four a CPU, if that is more.  Engines start as many as they are told to, and each takes memory.
_MOST_THREADS = 64


class Order(StrEnum):
    """Channel order of images."""

    RGB = "rgb"
    BGR = "bgr"


class Resize(StrEnum):
    """How images get their size."""

    CROP = "crop"
    STRETCH = "stretch"


ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx model or a .qir text.", show_default=False)]
ArtifactPath = Annotated[
    Path, typer.Argument(metavar="ARTIFACT", help="What `qcomp compile` wrote.", show_default=False)
]
TargetName = Annotated[str, typer.Option("--target", metavar="NAME", help="What to compile for; see `qcomp targets`.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME=1,3,48,320", help="Bind the shape of an input (repeatable).",
                 show_default=False),
]  # fmt: skip
Calibrate = Annotated[
    Path | None,
    typer.Option("--calibrate", metavar="DATA", show_default=False,
                 help="An .npz or .npy whose first axis counts samples, a folder of them, or a folder of images."),
]  # fmt: skip
Method = Annotated[
    str, typer.Option("--method", help="How ranges are chosen: auto, minmax, percentile[:99.99], entropy or mse.")
]
EffortLevel = Annotated[
    str, typer.Option("--effort", help="normal, or high: weights are rounded by their results, which takes longer.")
]
PerTensor = Annotated[bool, typer.Option("--per-tensor", help="One scale a weight tensor, not one a channel.")]
ImageMean = Annotated[
    str | None, typer.Option("--image-mean", metavar="M[,M,M]", show_default=False,
                             help="Images: what is subtracted from pixels of 0 to 255.")
]  # fmt: skip
ImageStd = Annotated[
    str | None, typer.Option("--image-std", metavar="S[,S,S]", show_default=False,
                             help="Images: what they are then divided by.")
]  # fmt: skip
ImageSize = Annotated[
    str | None, typer.Option("--image-size", metavar="HxW", help="Images: size, if the model leaves it open.",
                             show_default=False)
]  # fmt: skip
ImageOrder = Annotated[Order, typer.Option("--image-order", help="Images: order of the channels.")]
ImageResize = Annotated[Resize, typer.Option("--image-resize", help="Images: crop the middle, or stretch.")]


class Backend(StrEnum):
    """What makes the code of layers."""

    C = "c"
    TVM = "tvm"
    AUTO = "auto"


BackendName = Annotated[
    Backend,
    typer.Option("--backend", help="What makes the code of layers: C, TVM where it can, or by layer what is faster."),
]
TuningFile = Annotated[
    Path | None,
    typer.Option("--tuning", metavar="FILE", show_default=False,
                 help="What `qcomp tune` measured for the target: kernels and schedules of layers."),
]  # fmt: skip
Compiler = Annotated[
    str | None,
    typer.Option("--cc", metavar="gcc|clang|PATH", help="C compiler; without it, the one of the ziglang package.",
                 show_default=False),
]  # fmt: skip
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Level = Annotated[
    str | None,
    typer.Option("--level", metavar="NAME", show_default=False,
                 help="Which code of an artifact for several targets; without it, the best for this CPU."),
]  # fmt: skip


def check_threads(threads: int) -> int:
    """The number itself; QcompError for a negative one, and for more threads than could be of use."""
    most = max(_MOST_THREADS, 4 * (os.cpu_count() or 1))
    if not 0 <= threads <= most:
        raise QcompError(f"{threads} threads", where="--threads", fix=f"give 1 to {most}, or 0 for one a CPU")
    return threads


Threads = Annotated[
    int,
    typer.Option("--threads", metavar="N", callback=check_threads, help="Threads to run on; 0 means one for each CPU."),
]


def parse_shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """`NAME=1,3,48,320` -> {NAME: (1, 3, 48, 320)}.  Names may contain "=": the last one counts."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, equals, dims = text.rpartition("=")
        sizes = [d.strip() for d in dims.replace("x", ",").split(",")] if dims.strip() else []
        if not equals or not name or not all(d.isascii() and d.isdigit() and int(d) > 0 for d in sizes):
            raise QcompError(
                "this is no shape", where=f"--shape {text}", fix="write NAME=1,3,48,320 with sizes of 1 and more"
            )
        if name in shapes:
            raise QcompError(f"the shape of {name!r} is given twice", where=f"--shape {text}", fix="give it once")
        shapes[name] = tuple(int(d) for d in sizes)
    return shapes


def parse_numbers(option: str, text: str) -> tuple[float, ...]:
    """`0.5,0.5,0.5` -> (0.5, 0.5, 0.5)."""
    try:
        return tuple(float(item) for item in text.split(","))
    except ValueError:
        raise QcompError(
            f"{text!r} is not a list of numbers", where=option, fix="write one number, or one a channel: 0.5,0.4,0.4"
        ) from None


def parse_size(option: str, text: str) -> tuple[int, int]:
    """`224` or `224x320` (height by width) -> (height, width)."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(s.isascii() and s.isdigit() and int(s) > 0 for s in sides):
        raise QcompError(f"{text!r} is no image size", where=option, fix="write 224 or HEIGHTxWIDTH")
    return int(sides[0]), int(sides[-1])


def samples_for(
    graph: Graph, data: Path, mean: str | None, std: str | None, size: str | None, order: str, resize: str
) -> Samples:
    """The samples at `data`, fit for the inputs of the graph; QcompError for options of images without images."""
    from qcomp.ir.onnx_export import to_onnx
    from qcomp.quantize.inputs import InputSpec, inputs_of
    from qcomp.quantize.sample_images import ImageOptions, ImageSource
    from qcomp.quantize.samples import load_samples

    images = ImageOptions(
        mean=parse_numbers("--image-mean", mean) if mean is not None else (0.0,),
        std=parse_numbers("--image-std", std) if std is not None else (1.0,),
        size=parse_size("--image-size", size) if size is not None else None,
        order=order,  # type: ignore[arg-type]  # checked by ImageOptions
        resize=resize,  # type: ignore[arg-type]
    )
    # Where there is a softmax, an input may be its mask.
    masks = any(node.op.name in ("attention", "softmax") for node in graph.nodes)
    plain = tuple(InputSpec(v.name, v.dtype.numpy, v.shape) for v in graph.inputs)
    specs = inputs_of(to_onnx(graph)) if masks else plain
    samples = load_samples(data, specs, images)
    given = image_options(mean, std, size, order, resize)
    if given and not any(isinstance(source, ImageSource) for source in samples.sources):
        raise QcompError(f"these are arrays, not images: {', '.join(given)}", where=str(data), fix="leave that out")
    return samples


def raw_images(samples: Samples | None, mean: str | None, std: str | None) -> Finding | None:
    """Says so if a float input is fed pixels of 0 to 255 because nobody said how images become numbers."""
    from qcomp.quantize.check import Finding
    from qcomp.quantize.sample_images import ImageSource

    if samples is None or mean is not None or std is not None:
        return None
    for source in samples.sources:
        if isinstance(source, ImageSource) and source.spec.dtype.kind == "f":
            message = (
                f"{source.spec.name} is fed pixels of 0 to 255 as they are; if the model wants them normalized, give "
                "--image-mean and --image-std, if not, --image-std 1"
            )
            return Finding("raw-images", source.spec.name, message)
    return None


def check_images_are_read(calibrate: Path | None, *images: str | None) -> None:
    """QcompError for options of images (as `image_options` takes them) without data that they could be for."""
    unread = image_options(*images)  # type: ignore[arg-type]
    if unread and calibrate is None:
        raise QcompError("it is for images, and there are none", where=", ".join(unread), fix="give --calibrate DATA")


def image_options(mean: str | None, std: str | None, size: str | None, order: str, resize: str) -> list[str]:
    """The names of the options of images that were given and are not the default."""
    given = {
        "--image-mean": mean is not None,
        "--image-std": std is not None,
        "--image-size": size is not None,
        "--image-order": order != "rgb",
        "--image-resize": resize != "crop",
    }
    return [name for name, is_given in given.items() if is_given]
