"""Parts of a README between ``<!-- NAME -->`` and ``<!-- /NAME -->``: read and filled."""

from __future__ import annotations

import re
from collections.abc import Mapping

from eplb_gap.problem.errors import InputError


def _marked(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n)(.*?)(\n<!-- /{name} -->)", re.DOTALL)


def read(text: str, name: str) -> str:
    """Return the text of a block; empty where there is none."""
    found = _marked(name).search(text)
    return found[2] if found else ""


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """Return a README with other text in its blocks.

    Raises
    ------
    InputError
        If it does not hold each of them once.
    """
    for name, block in blocks.items():
        before, *parts = _marked(name).split(text)
        if len(parts) != 4:
            raise InputError(f"the README has {len(parts) // 4} blocks named {name}; one is needed")
        opening, _, closing, after = parts
        text = f"{before}{opening}{block}{closing}{after}"
    return text
