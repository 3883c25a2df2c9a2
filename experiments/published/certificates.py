"""Certificates of the gap table's instances: ``results/certificates/``, made by this module run as a script."""

from __future__ import annotations

from eplb_gap.experiments.loads.traces import gap_cases
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.published.manifest import write_manifest
from eplb_gap.problem import certificate
from eplb_gap.solvers import solve

FOLDER = "certificates"


def main() -> None:
    """Solve every instance of the gap table as its row was solved, write the certificate, and rewrite the manifest."""
    folder = rows.RESULTS / FOLDER
    folder.mkdir(exist_ok=True)
    for case in gap_cases().values():
        solution = solve(case.loads, case.deployment, "auto", *case.limits)
        path = folder / f"{case.name}.json"
        certificate.write(path, case.loads, case.deployment, solution.placement, solution.bounds)
        optimal = sum(status == "optimal" for status in solution.status)
        print(f"{path.relative_to(rows.ROOT)}: {optimal} of {len(solution.status)} layers optimal", flush=True)
    write_manifest(rows.RESULTS)


if __name__ == "__main__":
    main()
