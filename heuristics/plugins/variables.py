"""Variables that look like settings of this project and are none: a typo would otherwise say nothing."""

from __future__ import annotations

import difflib
import functools
import logging
import os

from eplb_gap.heuristics.plugins import KNOWN, PREFIX

LOG = logging.getLogger("eplb_gap")
ALIKE = 0.5
"""How alike a name must be to be proposed, as :class:`difflib.SequenceMatcher` measures it, without the prefix."""


def warn_of_unknown() -> None:
    """Log one warning that names every variable ``EPLB_GAP_...`` nobody reads, once a process; an empty one is none."""
    unknown = tuple(sorted(name for name, value in os.environ.items() if name.startswith(PREFIX) and value and name not in KNOWN))
    if unknown:
        _warn(unknown)


@functools.cache
def _warn(unknown: tuple[str, ...]) -> None:
    known = [name.removeprefix(PREFIX) for name in KNOWN]
    said = []
    for name in unknown:
        close = difflib.get_close_matches(name.removeprefix(PREFIX), known, 1, ALIKE)
        said.append(name + "".join(f" (is {PREFIX}{match} meant?)" for match in close))
    LOG.warning("eplb-gap: no such setting: %s; ignored, the policy answers as without that", ", ".join(said))
