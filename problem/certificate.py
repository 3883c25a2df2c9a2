"""Certificates: a placement and the witnesses of its bounds as JSON, and the exact re-check of all of it.

No solver is imported. Bounds that rest on the word of a solver or on an exhausted search, which leaves nothing to recompute, are
listed as claims.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem.atomic import write_atomically
from eplb_gap.problem.bounds.bounds import Bound, apportionment_bound, reachable
from eplb_gap.problem.bounds.partition import cover
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.digest import array_sha256
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.files import parse_json
from eplb_gap.problem.fractions import fraction, parse
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.proofs import proof_of
from eplb_gap.problem.validation import verify

SCHEMA = "eplb-gap certificate 1"
MAX_BYTES = 256 << 20
MAX_SETS = 200_000


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


@dataclass(frozen=True)
class Certificate:
    """What a certificate says, judged by nobody yet.

    Parameters
    ----------
    loads : ndarray
        int64 [layers, experts].
    deployment : Deployment
    placement : Placement
    upper : list of Fraction
        Makespan that is said of every layer.
    bounds : list of Bound
        Bound of every layer, with its witness.
    """

    loads: np.ndarray
    deployment: Deployment
    placement: Placement
    upper: list[Fraction]
    bounds: list[Bound]


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

    Raises
    ------
    InputError
        If loads, placement and deployment do not belong together or the file cannot be written.
    PlacementError
        If the placement is not legal.
    """
    upper = verify(placement, loads, deployment)
    checked = as_loads(loads, "loads", 2)
    document = {
        "schema": SCHEMA,
        "deployment": deployment.as_dict(),
        "loads": checked.tolist(),
        "loads_sha256": array_sha256(checked),
        "phy2log": placement.phy2log.tolist(),
        "layers": [
            {"upper": fraction(value), "lower": fraction(bound.value), "proof": bound.kind, "witness": bound.witness}
            for value, bound in zip(upper, bounds, strict=True)
        ],
    }
    write_atomically(path, json.dumps(document).encode())


def read(path: str | os.PathLike[str]) -> Certificate:
    """Read a certificate and check that its parts are what they must be; what it claims is :func:`check`'s to judge.

    Raises
    ------
    InputError
        If the file is missing, too large or no certificate.
    PlacementError
        If its map names an expert that does not exist or leaves one out.
    CertificateError
        If the loads are not those that it names.
    """
    document = parse_json(Path(path), MAX_BYTES)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError(f"certificate {path} has no schema {SCHEMA!r}")
    try:
        deployment = Deployment(**document["deployment"])
        loads = as_loads(document["loads"], "loads", 2)
        said_digest = document["loads_sha256"]
        placement = Placement(document["phy2log"], deployment.num_experts)
        upper = [parse(entry["upper"], "upper") for entry in document["layers"]]
        bounds = [Bound(parse(entry["lower"], "lower"), entry["proof"], dict(entry["witness"])) for entry in document["layers"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"certificate {path} lacks or misspells a field ({error})") from None
    if said_digest != array_sha256(loads):
        # Without this, changed loads could pass where a bound is a claim, which is not recomputed.
        raise CertificateError("the loads are not those that loads_sha256 names")
    return Certificate(loads, deployment, placement, upper, bounds)


def check(path: str | os.PathLike[str]) -> Verdict:
    """Re-check everything a certificate says, in integers and fractions.

    Parameters
    ----------
    path : path

    Returns
    -------
    Verdict

    Raises
    ------
    InputError
        If the file is missing, too large or no certificate.
    PlacementError
        If its map is not legal.
    CertificateError
        If a makespan or a bound is not what it says.

    Examples
    --------
    >>> import tempfile
    >>> from eplb_gap import Deployment, check_certificate, solve
    >>> from eplb_gap.problem.certificate import write
    >>> loads, deployment = [[7, 4, 3]], Deployment(3, 4, 2)
    >>> found = solve(loads, deployment, method="bounds")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/c.json", loads, deployment, found.placement, found.bounds)
    ...     check_certificate(f"{folder}/c.json").upper == found.upper
    True
    """
    return judge(read(path))


def judge(certificate: Certificate) -> Verdict:
    """Re-check everything that a certificate says, as :func:`check` does with a file."""
    loads, deployment = certificate.loads, certificate.deployment
    upper = verify(certificate.placement, loads, deployment)
    if len(certificate.bounds) != len(upper):
        raise CertificateError(f"the certificate has {len(certificate.bounds)} layer entries for {len(upper)} layers of loads")
    claims = []
    for layer, (makespan, said, bound) in enumerate(zip(upper, certificate.upper, certificate.bounds, strict=True)):
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
    lower = [bound.value for bound in certificate.bounds]
    return Verdict(upper, lower, sum(u == low for u, low in zip(upper, lower, strict=True)), claims)


def _check_layer(bound: Bound, loads: np.ndarray, deployment: Deployment) -> list[str]:
    if deployment.policy == "global" or bound.kind != "hierarchical":
        # A bound for the layer without nodes holds for any map of it.
        return _check_flat(bound, Instance.of_layer(loads, deployment))
    return _check_hierarchical(bound, loads, deployment)


def _check_flat(bound: Bound, instance: Instance) -> list[str]:
    """Check a bound on a flat instance; return what it takes on trust."""
    proof = proof_of(bound.kind)
    if proof.trust != "recomputed":
        return [f"{bound.value} by {bound.kind} of {bound.witness.get('solver', 'this project')}"]
    if proof.value is None:
        raise CertificateError(f"a {bound.kind} bound on an instance without nodes proves nothing")
    proven = proof.value(instance, bound.witness)
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
        value = parse(node["value"], "a node's value")
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


def summary(verdict: Verdict) -> Mapping[str, Any]:
    """Return a verdict as JSON-serialisable data."""
    return {
        "upper": [fraction(value) for value in verdict.upper],
        "lower": [fraction(value) for value in verdict.lower],
        "optimal": verdict.optimal,
        "claims": verdict.claims,
    }
