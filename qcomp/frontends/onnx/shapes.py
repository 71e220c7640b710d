"""Binding the dynamic dimensions of a model's inputs to numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qcomp.errors import QcompError

Dims = Sequence[int | str]

# Some exporters write "?" or -1 for any unknown size: two of them need not be equal.
_ANONYMOUS = ("", "?", "-1")


def bind_shapes(
    inputs: Mapping[str, Dims], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """A static shape for every input, and the names of the inputs whose batch dimension was set to 1.

    `inputs` holds each input's dimensions, a number or the symbol of a dynamic one ("" when it has no symbol);
    `shapes` what the caller asked for.  A symbol bound in one input is bound in all.  When the first dimension is
    the only one left open it becomes 1.  Raises QcompError for shapes that name no input or contradict the model,
    and for dimensions that stay open.
    """
    for name, dims in inputs.items():
        if any(isinstance(d, str) and d.startswith("-") and d != "-1" for d in dims):
            raise QcompError(f"input {name!r} has a negative size: [{_show(dims)}]", fix="export the model again")
    for name in shapes:
        if name not in inputs:
            known_names = ", ".join(map(repr, inputs)) or "none"
            raise QcompError(f"the model has no input {name!r}", fix=f"its inputs: {known_names}")
    symbols: dict[str, int] = {}
    for name, shape in shapes.items():
        _match(name, inputs[name], shape, symbols)
    bound: dict[str, tuple[int, ...]] = {}
    defaulted: list[str] = []
    for name, dims in inputs.items():
        if name in shapes:
            bound[name] = tuple(shapes[name])
            continue
        known = [symbols.get(d, d) if isinstance(d, str) else d for d in dims]
        if known and isinstance(known[0], str) and not any(isinstance(d, str) for d in known[1:]):
            known[0] = 1
            defaulted.append(name)
        if any(isinstance(d, str) for d in known):
            example = ",".join("N" if isinstance(d, str) else str(d) for d in known)
            raise QcompError(
                f"input {name!r} has dynamic dimensions [{_show(dims)}]",
                fix=f"bind them with --shape {name}={example}",
            )
        bound[name] = tuple(int(d) for d in known)
    return bound, tuple(defaulted)


def _match(name: str, dims: Dims, shape: tuple[int, ...], symbols: dict[str, int]) -> None:
    fits = len(dims) == len(shape) and all(int(s) >= 0 for s in shape)
    for dim, size in zip(dims, shape, strict=False):
        if isinstance(dim, str):
            if dim not in _ANONYMOUS and symbols.setdefault(dim, size) != size:
                fits = False
        elif dim != size:
            fits = False
    if not fits:
        fix = "keep its numbers and give each name one size" if len(dims) == len(shape) else f"give {len(dims)} sizes"
        raise QcompError(f"shape {list(shape)} does not fit input {name!r}, which is [{_show(dims)}]", fix=fix)


def _show(dims: Dims) -> str:
    return ", ".join((d or "?") if isinstance(d, str) else str(d) for d in dims)
