"""`python -m qcomp` is `qcomp`."""

from __future__ import annotations

from qcomp.cli import main

if __name__ == "__main__":
    main()
