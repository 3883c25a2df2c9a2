"""Certificates: a placement and the witnesses of its bounds as JSON, and the exact re-check of all of it.

No solver is imported. Bounds that rest on the word of a solver or on an exhausted search, which leaves nothing to recompute, are
listed as claims.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem.bounds.bounds import (
    Bound,
    apportionment_bound,
    capacity_bound,
    forced_counts_value,
    mean_bound,
    reachable,
    slot_counting_value,
)
from eplb_gap.problem.bounds.exhausted import replayed_value
from eplb_gap.problem.bounds.pairing_dual import pairing_value
from eplb_gap.problem.bounds.partition import cover
from eplb_gap.problem.bounds.pattern_dual import pattern_value
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import verify

SCHEMA = "eplb-gap certificate 1"
MAX_BYTES = 256 << 20
MAX_SETS = 200_000
CLAIMS = ("claim", "exhausted search")
"""Kinds of proof that nothing but trust in the program that made them supports."""


class CertificateError(ValueError):
    """A certificate does not hold; the message names the layer and the rule that fails."""


@dataclass(frozen=True)
class Verdict:
    """What a certificate proves.

    Parameters
    ----------
    upper, lower : list of Fraction
        Exact makespan and accepted bound of every layer.
    optimal : int
        Layers whose makespan equals their bound.
    claims : list of str
        One line per layer whose bound rests on a claim, saying whose.
    """

    upper: list[Fraction]
    lower: list[Fraction]
    optimal: int
    claims: list[str]


def write(
    path: str | os.PathLike[str], loads: Any, deployment: Deployment, placement: Placement, bounds: Sequence[Bound]
) -> None:
    """Write the certificate of a placement, atomically.

    Parameters
    ----------
    path : path
    loads : array_like of int [layers, experts]
    deployment : Deployment
    placement : Placement
    bounds : sequence of Bound
        One per layer.
    """
    upper = verify(placement, loads, deployment)
    document = {
        "schema": SCHEMA,
        "deployment": asdict(deployment),
        "loads": as_loads(loads, "loads", 2).tolist(),
        "loads_sha256": _digest(as_loads(loads, "loads", 2)),
        "phy2log": placement.phy2log.tolist(),
        "layers": [
            {"upper": _text(value), "lower": _text(bound.value), "proof": bound.kind, "witness": bound.witness}
            for value, bound in zip(upper, bounds, strict=True)
        ],
    }
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(document), encoding="utf-8")
    os.replace(partial, path)


def check(path: str | os.PathLike[str]) -> Verdict:
    """Re-check everything a certificate says, in integers and fractions.

    Raises
    ------
    InputError
        If the file is missing, too large or no certificate.
    PlacementError
        If its map is not legal.
    CertificateError
        If a makespan or a bound is not what it says.
    """
    document = _read(Path(path))
    try:
        deployment = Deployment(**document["deployment"])
        loads = as_loads(document["loads"], "loads", 2)
        said_digest = document["loads_sha256"]
        placement = Placement(document["phy2log"], deployment.num_experts)
        layers = [
            (_fraction(entry["upper"]), Bound(_fraction(entry["lower"]), entry["proof"], dict(entry["witness"])))
            for entry in document["layers"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"certificate {path} lacks or misspells a field ({error})") from None
    if said_digest != _digest(loads):
        # Without this, changed loads could pass where a bound is a claim, which is not recomputed.
        raise CertificateError("the loads are not those that loads_sha256 names")
    upper = verify(placement, loads, deployment)
    if len(layers) != len(upper):
        raise CertificateError(f"the certificate has {len(layers)} layer entries for {len(upper)} layers of loads")
    claims = []
    for layer, (makespan, (said, bound)) in enumerate(zip(upper, layers, strict=True)):
        if said != makespan:
            raise CertificateError(f"layer {layer}: upper is {said}, the map's makespan is {makespan}")
        if bound.value > makespan:
            raise CertificateError(f"layer {layer}: lower is {bound.value}, above the map's makespan {makespan}")
        try:
            claims += [f"layer {layer}: {text}" for text in _check_layer(bound, loads[layer], deployment)]
        except (CertificateError, InputError) as error:
            raise CertificateError(f"layer {layer}: {error}") from None
        except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            raise CertificateError(f"layer {layer}: the witness of the {bound.kind} bound is malformed ({error!r})") from None
    lower = [bound.value for _, bound in layers]
    return Verdict(upper, lower, sum(u == low for u, low in zip(upper, lower, strict=True)), claims)


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"certificate {path} has {path.stat().st_size} bytes; at most {MAX_BYTES} are read")
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"certificate {path} can't be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise InputError(f"certificate {path} is no JSON") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError(f"certificate {path} has no schema {SCHEMA!r}")
    return document


def _check_layer(bound: Bound, loads: np.ndarray, deployment: Deployment) -> list[str]:
    if deployment.policy == "global" or bound.kind != "hierarchical":
        # A bound for the layer without nodes holds for any map of it.
        return _check_flat(bound, Instance.of_layer(loads, deployment))
    return _check_hierarchical(bound, loads, deployment)


def _check_flat(bound: Bound, instance: Instance) -> list[str]:
    """Check a bound on a flat instance; return what it takes on trust."""
    if bound.kind in CLAIMS:
        return [f"{bound.value} by {bound.kind} of {bound.witness.get('solver', 'this project')}"]
    if bound.kind == "mean":
        proven = mean_bound(instance).value
    elif bound.kind == "capacity":
        proven = capacity_bound(instance).value
    elif bound.kind == "apportionment":
        proven = apportionment_bound(instance).value
    elif bound.kind == "slot counting":
        proven = slot_counting_value(instance, _fraction(bound.witness["refuted"]), _fraction(bound.witness["above"]))
    elif bound.kind == "forced counts":
        threshold = bound.witness.get("threshold")
        proven = forced_counts_value(instance, None if threshold is None else _fraction(threshold))
    elif bound.kind == "replayed search":
        proven = replayed_value(instance, bound.witness)
    elif bound.kind == "pairing dual":
        proven = pairing_value(instance, bound.witness)
    elif bound.kind == "pattern dual":
        proven = pattern_value(instance, bound.witness)
    else:
        raise CertificateError(f"there is no proof of kind {bound.kind!r}")
    if proven < bound.value:
        proven = reachable(instance, proven)
    if proven < bound.value:
        raise CertificateError(f"lower is {bound.value}, its {bound.kind} witness proves {proven}")
    return []


def _check_hierarchical(bound: Bound, loads: np.ndarray, deployment: Deployment) -> list[str]:
    """Check that no partition of the groups over the nodes has all its node bounds below the layer's bound.

    Nodes that the witness lists are bounded by their own witness, all others by mean and apportionment.
    """
    claims: list[str] = []
    size, per_node = deployment.experts_per_group, deployment.groups_per_node
    if math.comb(deployment.num_groups, per_node) > MAX_SETS:
        raise CertificateError(f"{deployment.num_groups} groups with {per_node} per node have more than {MAX_SETS} node problems")
    strong: set[tuple[int, ...]] = set()
    for node in bound.witness["nodes"]:
        groups = tuple(int(g) for g in node["groups"])
        value = _fraction(node["value"])
        node_loads = np.concatenate([loads[g * size : (g + 1) * size] for g in groups])
        instance = Instance.of_node(node_loads, deployment)
        if len(set(groups)) != per_node or list(groups) != sorted(groups):
            raise CertificateError(f"node {list(groups)} does not host {per_node} different groups in order")
        claims += [
            f"node {list(groups)}: {text}" for text in _check_flat(Bound(value, node["kind"], dict(node["witness"])), instance)
        ]
        if value >= bound.value:
            strong.add(groups)
    sums = loads.reshape(deployment.num_groups, size).sum(axis=1).tolist()
    weak = []
    for groups in itertools.combinations(range(deployment.num_groups), per_node):
        if groups in strong or Fraction(sum(sums[g] for g in groups), deployment.gpus_per_node) >= bound.value:
            continue
        node_loads = np.concatenate([loads[g * size : (g + 1) * size] for g in groups])
        if (
            int(node_loads.max()) >= bound.value
            and apportionment_bound(Instance.of_node(node_loads, deployment)).value >= bound.value
        ):
            continue
        weak.append(groups)
    if cover(weak, deployment.num_groups) is not None:
        raise CertificateError(f"lower is {bound.value}, but the groups can be put on nodes whose bounds all lie below it")
    return claims


def _digest(loads: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(loads, dtype="<i8").tobytes()).hexdigest()


def _text(value: Fraction) -> str:
    return f"{value.numerator}/{value.denominator}"


def _fraction(text: Any) -> Fraction:
    """Read "p/q" or "p"; nothing else, so that no exponent can make a huge number of a short text."""
    if not isinstance(text, str) or not text.replace("/", "", 1).isdigit() or not text.isascii() or len(text) > 2000:
        raise InputError(f"{str(text)[:40]!r} is no fraction; a text like '359/2' is needed")
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{text[:40]!r} is no fraction; a text like '359/2' is needed") from None


def summary(verdict: Verdict) -> Mapping[str, Any]:
    """Return a verdict as JSON-serialisable data."""
    return {
        "upper": [_text(value) for value in verdict.upper],
        "lower": [_text(value) for value in verdict.lower],
        "optimal": verdict.optimal,
        "claims": verdict.claims,
    }
