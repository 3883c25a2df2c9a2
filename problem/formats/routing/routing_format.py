"""What a format of routing says of itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eplb_gap.problem.formats.loads.load_format import FileStart
from eplb_gap.problem.routing.trace import RoutingTrace


@dataclass(frozen=True)
class RoutingFormat:
    """A format of routing, declared at the end of its module and listed in :mod:`.reading`.

    Parameters
    ----------
    name : str
        What users call it.
    description : str
        What it is, in one line.
    read : callable
        ``read(path, experts)``: the trace, of so many experts if the file does not tell them.
    recognise : callable
        ``recognise(start)``: whether a file is of this format.
    names : pattern, optional
        Names of the files of a recording that has one for each rank; a folder is recognised by them.
    """

    name: str
    description: str
    read: Callable[[Path, int | None], RoutingTrace]
    recognise: Callable[[FileStart], bool]
    names: re.Pattern[str] | None = None
