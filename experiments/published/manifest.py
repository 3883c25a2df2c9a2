"""What is published: every file, row, figure and table of ``results/`` with its sha256, script and revision."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from eplb_gap.experiments.exhibits.exhibits import BLOCKS, FIGURES, TEXTS
from eplb_gap.experiments.exhibits.paper_numbers import NUMBERS
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.published import blocks
from eplb_gap.experiments.studies.numbers import matches

MANIFEST, ROW_DIGESTS = "MANIFEST.json", "ROWS.sha256"
APART = {MANIFEST, ROW_DIGESTS, "README.md"}
"""Files of ``results/`` that are not listed: the two lists themselves and their description."""
FIGURE_FOLDER = "paper/figures"
DIGITS = 16
"""Hexadecimal digits kept of a row's sha256."""


def name(row: Row) -> str:
    """Return a row's key as text: suite | instance | method | seed."""
    return " | ".join(map(str, row.key))


def row_digest(row: Row) -> str:
    """Return the first digits of the sha256 of a row: its JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(row, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:DIGITS]


def manifest(results: Path, published: Rows) -> dict[str, Any]:
    """Return what is in ``results`` and drawn from it, as MANIFEST.json says it.

    Parameters
    ----------
    results : Path
        The README and the figures are looked for beside it.
    published : list of dict
        Its rows.

    Returns
    -------
    dict
        ``files``: sha256 by path in ``results``. ``suites``: number of rows and their revisions. ``figures`` and ``tables``:
        script, suites and sha256 by path in the project; blocks of pages have their names behind the page's path. ``numbers``:
        those of the paper, with value, script, the rows they come from (number, sha256 of their digests) and their revisions.
    """
    root = results.parent
    suites = sorted({row["suite"] for row in published})
    listed = sorted(p for p in results.rglob("*") if p.is_file() and p.relative_to(results).as_posix() not in APART)
    return {
        "files": {p.relative_to(results).as_posix(): _sha256(p.read_bytes()) for p in listed},
        "suites": {suite: _suite(published.where(suite=suite)) for suite in suites},
        "figures": _figures(root),
        "tables": _tables(root),
        "numbers": _numbers(root, published),
    }


def row_digests(published: Rows) -> dict[str, str]:
    """Return the digest of every row by its name."""
    return {name(row): row_digest(row) for row in published}


def write_manifest(results: Path) -> None:
    """Write both lists: MANIFEST.json and, one line per row, ROWS.sha256."""
    published = rows.read_suites(results)
    digests = row_digests(published)
    (results / ROW_DIGESTS).write_text("".join(f"{digest}  {key}\n" for key, digest in digests.items()))
    (results / MANIFEST).write_text(json.dumps(manifest(results, published), indent=1, sort_keys=True) + "\n")


def _suite(published: Rows) -> dict[str, Any]:
    return {"rows": len(published), "revisions": sorted({row.get("revision", "unknown") for row in published})}


def _figures(root: Path) -> dict[str, Any]:
    found = {}
    for figure in FIGURES:
        for path in (root / FIGURE_FOLDER / f"{figure.name}.pdf", root / FIGURE_FOLDER / f"{figure.name}.png"):
            if path.exists():
                entry = {"script": figure.script, "suites": list(figure.suites), "sha256": _sha256(path.read_bytes())}
                found[path.relative_to(root).as_posix()] = entry
    return found


def _tables(root: Path) -> dict[str, Any]:
    contents = {path: (root / path).read_bytes() for path in TEXTS if (root / path).exists()}
    pages = blocks.pages(root)
    parts = {f"{path}, {title}": (path, title) for title, path in blocks.places(pages, BLOCKS).items() if path in pages}
    contents |= {part: blocks.read(pages[path], title).encode() for part, (path, title) in parts.items()}
    texts = {path: BLOCKS[parts[path][1]] if path in parts else TEXTS[path] for path in contents}
    return {
        path: {"script": texts[path].script, "suites": list(texts[path].suites), "sha256": _sha256(content)}
        for path, content in contents.items()
    }


def _numbers(root: Path, published: Rows) -> dict[str, Any]:
    path = root / "paper" / "numbers.json"
    said = json.loads(path.read_text()) if path.exists() else {}
    digests, found = row_digests(published) if said else {}, {}
    for number, given in said.items():
        used = Rows(row for row in published if number in NUMBERS and matches(row, NUMBERS[number].patterns))
        listed = "".join(sorted(f"{digests[name(row)]}  {name(row)}\n" for row in used))
        found[number] = {**given, "sha256": _sha256(listed.encode()), **_suite(used)}
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
