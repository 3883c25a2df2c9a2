"""Redraw the published figures, tables and the README's tables from ``results/``; nothing is solved."""

from __future__ import annotations

import re
import sys

from experiments import head_to_head, heuristic_bench, rows, serving_bench, solver_bench
from experiments.figures import decomposition, draw_all, migration_front, pareto, performance_profile, scaling
from experiments.publish import write_manifest
from experiments.rows import Row
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


def readme_blocks(published: list[Row]) -> dict[str, str]:
    """Return the tables of the README by the name of their block."""
    return {
        "gap table": readme_table(published),
        "loss table": loss_rows(published),
        "head to head": head_to_head.readme_table(published),
        "serving advice": serving_bench.advice(published),
    }


def main() -> None:
    """Redraw everything."""
    published = rows.read_suites(rows.RESULTS)
    benches = (*solver_bench.SUITES, *heuristic_bench.SUITES, *serving_bench.SUITES)
    missing = {"gap", "protocol", "runtime", *benches} - {row["suite"] for row in published}
    if missing:
        sys.exit(f"results/ holds no rows of {', '.join(sorted(missing))}; run `make reproduce bench publish` first")
    write_tables(published, rows.RESULTS / "tables.md")
    README.write_text(fill_readme(README.read_text(), readme_blocks(published)))
    folder = rows.ROOT / "paper" / "figures"
    drawn = draw_all(published, folder)
    (rows.RESULTS / "solver_tables.md").write_text(solver_bench.tables(published))
    (rows.RESULTS / "heuristic_tables.md").write_text(heuristic_bench.tables(published))
    drawn += performance_profile.draw(published, folder) + pareto.draw(published, folder) + scaling.draw(published, folder)
    (rows.RESULTS / "serving_tables.md").write_text(serving_bench.tables(published))
    drawn += decomposition.draw(published, folder) + migration_front.draw(published, folder)
    write_manifest(rows.RESULTS)
    for path in drawn:
        print(path.relative_to(rows.ROOT))


if __name__ == "__main__":
    main()
