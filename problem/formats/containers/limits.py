"""How much a recording may hold: what claims more is refused before it is allocated."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eplb_gap.problem.errors import InputError

MAX_ELEMENTS = 1 << 28
"""Counts of one recording: steps x layers x experts."""
MAX_LAYERS = 1 << 16


def check_elements(shape: Sequence[int], where: str) -> None:
    """Refuse a shape [..., layers, experts] that is larger than any recording, before it is allocated."""
    if math.prod(shape) > MAX_ELEMENTS:
        raise InputError(f"{where} has shape {tuple(shape)}; at most {MAX_ELEMENTS} counts are read")
    if len(shape) > 1 and shape[-2] > MAX_LAYERS:
        raise InputError(f"{where} has {shape[-2]} layers; at most {MAX_LAYERS} are read")
