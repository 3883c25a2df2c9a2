"""Copy finished rows from ``runs/`` to ``results/`` and rewrite the manifest; ``--certificates`` makes those anew."""

from __future__ import annotations

import sys
from pathlib import Path

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.published import best_known, certificates
from eplb_gap.experiments.published.manifest import write_manifest
from eplb_gap.experiments.studies import jobs
from eplb_gap.experiments.studies.public_levels import NOT_GIVEN
from eplb_gap.problem.atomic import write_atomically
from eplb_gap.problem.errors import InputError


def publish(runs: Path, results: Path) -> list[str]:
    """Copy every suite of ``runs``, one row per key, certificates and tables; rewrite what follows; return the suites' names.

    Of a suite that was measured in part the other rows of the grid stay as they are, and so do rows on loads that this run was
    not given.

    Raises
    ------
    InputError
        If a row in ``runs`` is a failure; nothing is copied then.
    """
    failures = [row for row in rows.read_suites(runs) if row.failed]
    if failures:
        name = failures[0].key
        raise InputError(f"{runs} holds {len(failures)} failed row(s), the first {name}: {failures[0]['status']}; run them again")
    names, grid = [], {key for keys in jobs.keys().values() for key in keys}
    for path in sorted(runs.glob("*.ndjson")):
        before = rows.read(results / path.name)
        known = {row.key for row in before}
        # A run without the files of public models says so; it does not replace what was measured on them.
        fresh = [row for row in rows.read(path) if row.get("status") != NOT_GIVEN or row.key not in known]
        new = {row.key for row in fresh}
        kept = (row for row in before if row.key in grid - new)
        rows.write(results / path.name, sorted([*fresh, *kept], key=lambda r: tuple(map(str, r.key))))
        names.append(path.stem)
    for path in sorted((runs / certificates.FOLDER).glob("*.json")):
        write_atomically(results / certificates.FOLDER / path.name, path.read_bytes())
    tables = runs / "tables.md"
    if tables.exists():
        write_atomically(results / "tables.md", tables.read_bytes())
    best_known.write(results, rows.read_suites(results))
    write_manifest(results)
    return names


def main(arguments: list[str]) -> None:
    """Publish what is in ``runs/``, or make the certificates anew."""
    if arguments == ["--certificates"]:
        for line in certificates.write(rows.RESULTS / certificates.FOLDER):
            print(line, flush=True)
        best_known.refresh(rows.RESULTS, rows.read_suites(rows.RESULTS))
        return
    published = publish(rows.RUNS, rows.RESULTS)
    if not published:
        raise InputError("runs/ holds no rows; run `make reproduce` first")
    print("published " + ", ".join(published))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
