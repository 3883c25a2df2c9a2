"""Redraw the published figures, tables and the README's tables from ``results/``; nothing is solved."""

from __future__ import annotations

import re
import sys

from experiments import rows
from experiments.figures import draw_all
from experiments.publish import write_manifest
from experiments.tables import loss_rows, readme_table, write_tables

README = rows.ROOT / "README.md"


def fill_readme(text: str, blocks: dict[str, str]) -> str:
    """Return the README with the text between ``<!-- NAME -->`` and ``<!-- /NAME -->`` replaced for every block."""
    for name, block in blocks.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
        text, count = marked.subn(lambda found, block=block: found[1] + block + found[2], text)
        if count != 1:
            sys.exit(f"README.md has {count} blocks named {name}; one is needed")
    return text


def main() -> None:
    """Redraw everything."""
    published = rows.read_suites(rows.RESULTS)
    if not published:
        sys.exit("results/ holds no rows; run `make reproduce publish` first")
    write_tables(published, rows.RESULTS / "tables.md")
    write_manifest(rows.RESULTS)
    README.write_text(fill_readme(README.read_text(), {"gap table": readme_table(published), "loss table": loss_rows(published)}))
    for path in draw_all(published, rows.ROOT / "paper" / "figures"):
        print(path.relative_to(rows.ROOT))


if __name__ == "__main__":
    main()
