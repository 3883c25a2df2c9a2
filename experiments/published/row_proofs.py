"""What rows say of themselves, checked exactly: gaps, bounds against makespans, kept maps, hashes of instances made anew."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.rows import Key, Row, Rows, leaves
from eplb_gap.experiments.published.compare import FLOAT_TOLERANCE
from eplb_gap.experiments.published.manifest import name
from eplb_gap.experiments.studies.catalogue import STUDIES
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.digest import array_sha256
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.fractions import fractions
from eplb_gap.problem.metrics import optimality_gap
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.proofs import TRUSTS, described_trust
from eplb_gap.problem.validation import verify


@dataclass(frozen=True)
class Instance:
    """Loads, int64 [windows, layers, experts], and deployment that a row was measured on, and the hash its row must carry."""

    loads: np.ndarray
    deployment: Deployment
    hash: str


def problems(published: Rows) -> list[str]:
    """Return everything in rows that contradicts itself, another row of the same instance, or the instance; one line each."""
    found = [f"{name(row)}: {text}" for row in published for text in (*_within(row), *_against_instance(row))]
    return [*found, *_across(published)]


def _within(row: Row) -> Iterator[str]:
    """Check that gap, status and bounds of a row agree with each other."""
    upper, lower = row.upper, row.lower
    yield from _trust(row)
    if not lower or not upper:
        return
    lists = {side: list(leaves(row[side])) for side in ("status", "gap", "proof") if isinstance(row.get(side), list)}
    for side, values in {"lower": lower, **lists}.items():
        if len(values) != len(upper):
            yield f"{side} has {len(values)} entries for {len(upper)} makespans"
            return
    for layer, (up, low) in enumerate(zip(upper, lower, strict=True)):
        if low > up:
            yield f"layer {layer}: lower {low} is above upper {up}"
        elif "status" in lists and (row["status"][layer] == "optimal") != (low == up):
            yield f"layer {layer}: status is {row['status'][layer]!r} with lower {low} and upper {up}"
        elif "gap" in lists and row["gap"][layer] != optimality_gap(up, low):
            yield f"layer {layer}: gap is {row['gap'][layer]!r}, upper / lower - 1 is {optimality_gap(up, low)!r}"


def _trust(row: Row) -> Iterator[str]:
    """Check that a row counts its bounds by what their kinds of proof rest on."""
    if "trust" not in row:
        return
    counts = row["proof"].values() if isinstance(row["proof"], dict) else [Counter(leaves(row["proof"]))]
    found = dict.fromkeys(TRUSTS, 0)
    try:
        for kind, number in (item for of in counts for item in of.items()):
            found[described_trust(kind)] += number
    except KeyError as error:
        yield f"there is no proof of kind {error}"
        return
    if found != row["trust"]:
        yield f"trust is {row['trust']}, by the kinds of proof it is {found}"


def _across(published: Rows) -> Iterator[str]:
    """Check every bound of an instance against every makespan of the same instance: whatever found it, none may be lower."""
    bounds: dict[str, list[tuple[str, list[Fraction]]]] = defaultdict(list)
    reached: dict[str, list[tuple[str, list[Fraction]]]] = defaultdict(list)
    for row in published:
        bounds[row["hash"]] += [(who, values) for who, values in [(name(row), row.lower)] if values]
        reached[row["hash"]] += [(who, values) for who, values in _reached(row) if values]
    for digest, of_instance in bounds.items():
        count = len(of_instance[0][1]) if of_instance else 0
        for who, values in (*of_instance, *reached[digest]):
            if of_instance and len(values) != count:
                yield f"{who}: {len(values)} layers, another row of this instance has {count}"
                return
        best = [max((values[layer], who) for who, values in of_instance) for layer in range(count)]
        for who, values in reached[digest] if of_instance else ():
            for layer, (value, (low, source)) in enumerate(zip(values, best, strict=True)):
                if value < low:
                    yield f"{who}: layer {layer}: makespan {value} is below the bound {low} of {source}"


def _reached(row: Row) -> Iterator[tuple[str, list[Fraction]]]:
    """Yield the makespans of every method in a row."""
    yield name(row), row.upper
    for method, values in row.get("programs", {}).items():
        yield f"{name(row)}, {method}", rows.fractions_in(values)
    for method, measured in row.get("methods", {}).items():
        yield f"{name(row)}, {method}", rows.fractions_in(measured.get("upper"))


def _against_instance(row: Row) -> Iterator[str]:
    """Check hash, kept map, mean bound and planning balancedness against the instance, made anew."""
    instance = _instance(row)
    if instance is None:
        return
    if row["hash"] != instance.hash:
        yield f"hash is {row['hash']}, the instance's is {instance.hash}"
    layers, gpus = instance.loads.shape[1], instance.deployment.num_gpus
    upper = row.upper
    totals = [int(total) for total in instance.loads.sum(axis=-1).ravel()]
    if len(upper) % layers or len(upper) > len(totals):
        yield f"{len(upper)} makespans for {layers} layers"
        return
    for layer, (value, total) in enumerate(zip(upper, totals, strict=False)):
        if value * gpus < total:
            yield f"layer {layer}: upper {value} is below the mean load {Fraction(total, gpus)}"
    if upper:
        yield from _balancedness(row, totals, upper, layers, gpus)
    if "phy2log" in row:
        yield from _kept_map(row, instance)


def _balancedness(row: Row, totals: list[int], upper: list[Fraction], layers: int, gpus: int) -> Iterator[str]:
    """Check that the stored balancedness of planning windows is mean load over makespan, both summed over layers."""
    said = row.get("planning")
    values = said if isinstance(said, list) else [said["gpu"]] if said else []
    if len(values) * layers > len(upper):
        yield f"planning has {len(values)} windows, upper has {len(upper) // layers}"
        return
    for window, value in enumerate(values):
        at = slice(window * layers, (window + 1) * layers)
        exact = float(Fraction(sum(totals[at]), gpus) / sum(upper[at], Fraction(0)))
        if not math.isclose(value, exact, rel_tol=FLOAT_TOLERANCE):
            yield f"planning balancedness of window {window} is {value!r}, from the makespans it is {exact!r}"


def _kept_map(row: Row, instance: Instance) -> Iterator[str]:
    try:
        placement = Placement(row["phy2log"], instance.deployment.num_experts)
        found = verify(placement, instance.loads[0], instance.deployment)
    except (PlacementError, InputError) as error:
        yield f"phy2log: {error}"
        return
    if fractions(found) != row["upper"]:
        yield "upper is not what phy2log gives"
    if not array_sha256(placement.phy2log).startswith(row["placement"]):
        yield "placement is not the hash of phy2log"


@cache
def _arguments(module: str) -> dict[Key, dict[str, Any]]:
    """Return what the cells of a study are given, by the key of their rows."""
    return {cell.key: cell.arguments for cell in STUDIES[module].cells()}


def _instance(row: Row) -> Instance | None:
    """Return the instance of a row as its cell would make it; None where no cell makes such a row, or it is of many."""
    for module, study in STUDIES.items():
        if study.suite != row["suite"] or study.instance is None:
            continue
        given = _arguments(module).get(row.key)
        if given is not None:
            loads, deployment = study.instance(**given)
            return Instance(loads.reshape(-1, *loads.shape[-2:]), deployment, rows.instance_hash(loads, study.hashed(deployment)))
    return None
