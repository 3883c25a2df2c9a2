"""Copy finished rows from ``runs/`` to ``results/`` and rewrite the manifest; ``--certificates`` makes those anew."""

from __future__ import annotations

import sys
from pathlib import Path

from eplb_gap.experiments.loads.traces import gap_cases
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.published.manifest import write_manifest
from eplb_gap.problem import certificate
from eplb_gap.problem.atomic import write_atomically
from eplb_gap.problem.errors import InputError
from eplb_gap.solvers import solve

CERTIFICATES = "certificates"
"""Folder in ``results/``: one of every instance of the gap table."""


def publish(runs: Path, results: Path) -> list[str]:
    """Copy every suite of ``runs``, one row per key, and the tables; rewrite the manifest; return the suites' names.

    Raises
    ------
    InputError
        If a row in ``runs`` is a failure; nothing is copied then.
    """
    failures = [row for row in rows.read_suites(runs) if row.failed]
    if failures:
        name = failures[0].key
        raise InputError(f"{runs} holds {len(failures)} failed row(s), the first {name}: {failures[0]['status']}; run them again")
    names = []
    for path in sorted(runs.glob("*.ndjson")):
        rows.write(results / path.name, sorted(rows.read(path), key=lambda r: tuple(map(str, r.key))))
        names.append(path.stem)
    tables = runs / "tables.md"
    if tables.exists():
        write_atomically(results / "tables.md", tables.read_bytes())
    write_manifest(results)
    return names


def certify(results: Path) -> None:
    """Solve every instance of the gap table as its row was solved, write the certificate, and rewrite the manifest."""
    folder = results / CERTIFICATES
    folder.mkdir(exist_ok=True)
    for case in gap_cases().values():
        solution = solve(case.loads, case.deployment, "auto", *case.limits)
        path = folder / f"{case.name}.json"
        certificate.write(path, case.loads, case.deployment, solution.placement, solution.bounds)
        optimal = sum(status == "optimal" for status in solution.status)
        print(f"{path.name}: {optimal} of {len(solution.status)} layers optimal", flush=True)
    write_manifest(results)


if __name__ == "__main__":
    if sys.argv[1:] == ["--certificates"]:
        certify(rows.RESULTS)
        sys.exit()
    try:
        published = publish(rows.RUNS, rows.RESULTS)
    except InputError as error:
        sys.exit(str(error))
    if not published:
        sys.exit("runs/ holds no rows; run `make reproduce` first")
    print("published " + ", ".join(published))
