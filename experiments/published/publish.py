"""Copy finished rows from ``runs/`` to ``results/`` and rewrite the manifest."""

from __future__ import annotations

import sys
from pathlib import Path

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.published.manifest import write_manifest
from eplb_gap.problem.atomic import write_atomically
from eplb_gap.problem.errors import InputError


def publish(runs: Path, results: Path) -> list[str]:
    """Copy every suite of ``runs``, one row per key, and the tables; rewrite the manifest; return the suites' names.

    Raises
    ------
    InputError
        If a row in ``runs`` is a failure; nothing is copied then.
    """
    failures = [row for row in rows.read_suites(runs) if rows.failed(row)]
    if failures:
        name = " ".join(map(str, rows.key(failures[0])))
        raise InputError(f"{runs} holds {len(failures)} failed row(s), the first {name}: {failures[0]['status']}; run them again")
    names = []
    for path in sorted(runs.glob("*.ndjson")):
        rows.write(results / path.name, sorted(rows.read(path), key=lambda r: tuple(map(str, rows.key(r)))))
        names.append(path.stem)
    tables = runs / "tables.md"
    if tables.exists():
        write_atomically(results / "tables.md", tables.read_bytes())
    write_manifest(results)
    return names


if __name__ == "__main__":
    try:
        published = publish(rows.RUNS, rows.RESULTS)
    except InputError as error:
        sys.exit(str(error))
    if not published:
        sys.exit("runs/ holds no rows; run `make reproduce` first")
    print("published " + ", ".join(published))
