"""Redraw from ``results/`` the figures, all tables, the paper's numbers and the best known values; nothing is solved."""

from __future__ import annotations

import sys
from pathlib import Path

from eplb_gap.experiments.exhibits.exhibits import BLOCKS, FIGURES, TEXTS
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.published import best_known
from eplb_gap.experiments.published.blocks import fill, pages, places
from eplb_gap.experiments.published.described import blocks
from eplb_gap.experiments.published.manifest import FIGURE_FOLDER, write_manifest
from eplb_gap.problem.errors import InputError


def fill_pages(root: Path, published: Rows) -> None:
    """Fill the measured parts of the README and of docs/."""
    texts = pages(root)
    where = places(texts, BLOCKS)
    for path, text in texts.items():
        found = {name: block.render(published) for name, block in BLOCKS.items() if where[name] == path}
        (root / path).write_text(fill(text, found))


def main() -> None:
    """Redraw everything."""
    published = rows.read_suites(rows.RESULTS)
    needed = {suite for figure in FIGURES for suite in figure.suites} | {s for text in TEXTS.values() for s in text.suites}
    missing = needed - {row["suite"] for row in published}
    if missing:
        sys.exit(f"results/ holds no rows of {', '.join(sorted(missing))}; run `make reproduce bench publish` first")
    for path, text in TEXTS.items():
        (rows.ROOT / path).parent.mkdir(exist_ok=True)
        (rows.ROOT / path).write_text(text.render(published))
    fill_pages(rows.ROOT, published)
    described = rows.RESULTS / "README.md"
    described.write_text(fill(described.read_text(), blocks()))
    drawn = [file for figure in FIGURES for file in figure.draw(published, rows.ROOT / FIGURE_FOLDER)]
    best_known.write(rows.RESULTS, published)
    write_manifest(rows.RESULTS)
    for file in drawn:
        print(file.relative_to(rows.ROOT))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
