"""Redraw from ``results/`` the figures, all tables and the paper's numbers; nothing is solved."""

from __future__ import annotations

import re
import sys

from eplb_gap.experiments.exhibits.exhibits import FIGURES, README_BLOCKS, TEXTS
from eplb_gap.experiments.measuring import row_schema, rows
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.experiments.published.manifest import FIGURE_FOLDER, write_manifest

README = rows.ROOT / "README.md"


def fill_readme(text: str, blocks: dict[str, str]) -> str:
    """Return the README with the text between ``<!-- NAME -->`` and ``<!-- /NAME -->`` replaced for every block."""
    for name, block in blocks.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
        text, count = marked.subn(lambda found, block=block: found[1] + block + found[2], text)
        if count != 1:
            sys.exit(f"README.md has {count} blocks named {name}; one is needed")
    return text


def readme_blocks(published: list[Row]) -> dict[str, str]:
    """Return the tables of the README by the name of their block."""
    return {name: text.render(published) for name, text in README_BLOCKS.items()}


def main() -> None:
    """Redraw everything."""
    published = rows.read_suites(rows.RESULTS)
    needed = {suite for module in FIGURES for suite in module.SUITES} | {s for text in TEXTS.values() for s in text.suites}
    missing = needed - {row["suite"] for row in published}
    if missing:
        sys.exit(f"results/ holds no rows of {', '.join(sorted(missing))}; run `make reproduce bench publish` first")
    for path, text in TEXTS.items():
        (rows.ROOT / path).parent.mkdir(exist_ok=True)
        (rows.ROOT / path).write_text(text.render(published))
    README.write_text(fill_readme(README.read_text(), readme_blocks(published)))
    described = rows.RESULTS / "README.md"
    described.write_text(fill_readme(described.read_text(), {row_schema.README_BLOCK: row_schema.table()}))
    drawn = [path for module in FIGURES for path in module.draw(published, rows.ROOT / FIGURE_FOLDER)]
    write_manifest(rows.RESULTS)
    for path in drawn:
        print(path.relative_to(rows.ROOT))


if __name__ == "__main__":
    main()
