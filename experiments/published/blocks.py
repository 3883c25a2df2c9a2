"""Parts of pages between ``<!-- NAME -->`` and ``<!-- /NAME -->``: found, read and filled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from eplb_gap.problem.errors import InputError


def _marked(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n)(.*?)(\n<!-- /{name} -->)", re.DOTALL)


def read(text: str, name: str) -> str:
    """Return the text of a block; empty where there is none."""
    found = _marked(name).search(text)
    return found[2] if found else ""


def pages(root: Path) -> dict[str, str]:
    """Return the pages that may hold blocks, the README and those of docs/, by their path in the project."""
    paths = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    return {path.relative_to(root).as_posix(): path.read_text() for path in paths if path.exists()}


def places(texts: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the path of the page that holds each block; a block that no page holds is missed in the README."""
    return {name: next((path for path, text in texts.items() if _marked(name).search(text)), "README.md") for name in names}


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """Return a page with other text in its blocks.

    Raises
    ------
    InputError
        If it does not hold each of them once.
    """
    for name, block in blocks.items():
        before, *parts = _marked(name).split(text)
        if len(parts) != 4:
            raise InputError(f"the page has {len(parts) // 4} blocks named {name}; one is needed")
        opening, _, closing, after = parts
        text = f"{before}{opening}{block}{closing}{after}"
    return text
