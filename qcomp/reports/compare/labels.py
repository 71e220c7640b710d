"""Labels as comparisons take them: for each decision the classes that count as right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcomp.quantize import labels


def read_labels(path: Path) -> NDArray[np.int64]:
    """Labels [n, accepted] from a file that `qcomp.quantize.labels.read_labels` takes; -1 fills up rows.

    QcompError for anything else.
    """
    rows = labels.read_labels(path)
    found = np.full((len(rows), max(1, *(row.size for row in rows))), -1, np.int64)
    for index, row in enumerate(rows):
        found[index, : row.size] = row
    return found
