"""Redraw the published figures and tables from ``results/``; nothing is solved."""

from __future__ import annotations

import sys

from experiments import rows
from experiments.figures import draw_all
from experiments.tables import write_tables

published = rows.read_suites(rows.RESULTS)
if not published:
    sys.exit("results/ holds no rows; run `make reproduce publish` first")
write_tables(published, rows.RESULTS / "tables.md")
for path in draw_all(published, rows.ROOT / "paper" / "figures"):
    print(path.relative_to(rows.ROOT))
