"""The errors of the package: one family, so that a caller can catch bad input without catching bugs."""

from __future__ import annotations


class InputError(ValueError):
    """An argument or a file is not what it must be; the message names it, what was found, what is allowed."""


class PlacementError(ValueError):
    """A map is not a legal placement; the message names the layer, the slot or expert, and the rule it breaks."""
