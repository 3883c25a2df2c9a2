"""Whether kernels may be interpreted at first, as the environment says; kept apart from numba, which takes long to import."""

from __future__ import annotations

import os

INTERPRET = "EPLB_GAP_INTERPRET"


def interprets() -> bool:
    """Return whether a kernel may be interpreted until it is compiled; see :mod:`eplb_gap.heuristics.tiers`."""
    return os.environ.get(INTERPRET) != "0"


def compile_first() -> None:
    """Have this process and those that it starts compile kernels before they are used: for whoever takes times."""
    os.environ[INTERPRET] = "0"
