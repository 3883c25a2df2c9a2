"""The published certificates: one of every instance of the gap table, and one of every kind of witness."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from eplb_gap.experiments.loads import witnesses
from eplb_gap.experiments.loads.traces import gap_cases
from eplb_gap.problem import certificate
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.proofs import trust
from eplb_gap.solvers import Solution, solve

FOLDER = "certificates"
"""In ``results/``."""


def write(folder: Path) -> Iterator[str]:
    """Solve and write all certificates into a folder; yield a line about each as it is done.

    Instances of the gap table are solved as their rows were.

    Raises
    ------
    InputError
        If no example of a kind ends with a witness of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for case in gap_cases().values():
        yield _saved(solve(case.loads, case.deployment, "auto", *case.limits), folder / f"{case.name}.json")
    for kind in witnesses.KINDS:
        yield _saved(example(kind), folder / f"{witnesses.name_of(kind)}.json")


def example(kind: str) -> Solution:
    """Solve the examples of a kind of witness until one ends with it, and return its solution.

    Raises
    ------
    InputError
        If none does.
    """
    tried = []
    for each in witnesses.EXAMPLES:
        if each.kind == kind:
            solution = solve(each.loads, each.deployment, each.method, time_limit=witnesses.SECONDS)
            if solution.bounds[0].kind == kind and trust(solution.bounds[0]) == "recomputed":
                return solution
            tried.append(solution.proof[0])
    raise InputError(f"no example of {kind!r} ends with such a witness, but with {', '.join(tried) or 'none'}; another is needed")


def _saved(solution: Solution, path: Path) -> str:
    solution.save(path)
    rests = ", ".join(sorted(set(solution.proof)))
    met = sum(status == "optimal" for status in solution.status)
    return f"{path.name}: bounds met in {met} of {len(solution.status)} layers; {rests}"


def problems(folder: Path) -> list[str]:
    """Re-check every certificate, without a solver: it holds and is of the instance it is named after, and none is missing."""
    wanted = {case.name: (case.loads, case.deployment) for case in gap_cases().values()}
    found = [line for name, instance in wanted.items() for line in _of_instance(folder / f"{name}.json", *instance)]
    return found + [line for kind in witnesses.KINDS for line in _of_kind(folder / f"{witnesses.name_of(kind)}.json", kind)]


def _of_instance(path: Path, loads: np.ndarray, deployment: Deployment) -> list[str]:
    label = f"{FOLDER}/{path.name}"
    try:
        read = certificate.read(path)
        certificate.judge(read)
    except (InputError, PlacementError, certificate.CertificateError) as error:
        return [f"{label}: {error}"]
    if read.loads.tolist() != loads.tolist() or read.deployment != deployment:
        return [f"{label}: is of other loads or another deployment"]
    return []


def _of_kind(path: Path, kind: str) -> list[str]:
    label = f"{FOLDER}/{path.name}"
    try:
        read = certificate.read(path)
        verdict = certificate.judge(read)
    except (InputError, PlacementError, certificate.CertificateError) as error:
        return [f"{label}: {error}"]
    same = (e.deployment == read.deployment and e.loads.tolist() == read.loads.tolist() for e in witnesses.EXAMPLES)
    if not any(same):
        return [f"{label}: is of no example of {kind}"]
    if verdict.claims or {bound.kind for bound in read.bounds} != {kind}:
        return [f"{label}: its bounds do not rest on {kind} alone"]
    return []
