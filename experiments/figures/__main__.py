"""Redraw the published figures, tables and the README's tables from ``results/``; nothing is solved."""

from __future__ import annotations

import re
import sys

from experiments import heuristic_bench, rows, solver_bench
from experiments.figures import draw_all, pareto, performance_profile, scaling
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
    README.write_text(fill_readme(README.read_text(), {"gap table": readme_table(published), "loss table": loss_rows(published)}))
    folder = rows.ROOT / "paper" / "figures"
    drawn = draw_all(published, folder)
    suites = {row["suite"] for row in published}
    if suites >= set(solver_bench.SUITES):
        (rows.RESULTS / "solver_tables.md").write_text(solver_bench.tables(published))
        drawn += performance_profile.draw(published, folder)
    if suites >= set(heuristic_bench.SUITES):
        (rows.RESULTS / "heuristic_tables.md").write_text(heuristic_bench.tables(published))
        drawn += pareto.draw(published, folder) + scaling.draw(published, folder)
    write_manifest(rows.RESULTS)
    for path in drawn:
        print(path.relative_to(rows.ROOT))


if __name__ == "__main__":
    main()
