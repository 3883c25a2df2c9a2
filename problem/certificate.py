"""Certificates: a placement and the witnesses of its bounds as JSON, and the exact re-check of all of it.

No solver is imported. Bounds that rest on the word of a solver or on an exhausted search without a log, which leaves nothing to
recompute, are listed as claims; a layer with such a bound is never counted as proven.

A certificate is not trusted. It is refused if anything in it is read by nobody, is of another type than this project writes, or
could print more than it says: unknown fields, repeated keys, flags or floats for integers, fractions not in lowest terms, names
that are not plain text. All work of the check is limited (:data:`MAX_BYTES`, :data:`MAX_SETS`, and the limits in
:mod:`eplb_gap.problem.bounds`).
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eplb_gap.problem.atomic import write_atomically
from eplb_gap.problem.bounds.bounds import Bound, counts_below, reachable
from eplb_gap.problem.bounds.partition import cover
from eplb_gap.problem.deployment import NUMBERS, Deployment
from eplb_gap.problem.digest import array_sha256
from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.files import fields, parse_json
from eplb_gap.problem.fractions import fraction, parse
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.proofs import CLAIM_OF, claimant, witness_of
from eplb_gap.problem.validation import verify

SCHEMA = "eplb-gap certificate 1"
MAX_BYTES = 256 << 20
MAX_SETS = 2_000_000
"""Sets of groups that nodes may host, of all layers whose bound is over nodes."""
MAX_STEPS = 2_000_000
"""Steps of the search for a partition of the groups with all node bounds below the layer's."""
MAX_INTEGER = 1 << 63
FIELDS = ("schema", "deployment", "loads", "loads_sha256", "phy2log", "layers")
LAYER_FIELDS = ("upper", "lower", "proof", "witness")
NODE_FIELDS = ("groups", "value", "kind", "witness")


State = Literal["optimal", "claimed", "open"]


class CertificateError(ValueError):
    """A certificate does not hold; the message names the layer and the rule that fails."""


@dataclass(frozen=True)
class Claim:
    """A bound that is not recomputed.

    Parameters
    ----------
    layer : int
    what : str
        The bound and, under the hierarchical policy, the node's groups.
    by : str
        Whose word it is: "claim of ..." with a solver and its version, or "exhausted search of this project".
    """

    layer: int
    what: str
    by: str

    def __str__(self) -> str:
        return f"layer {self.layer}: {self.what} by {self.by}"


@dataclass(frozen=True)
class Verdict:
    """What a certificate proves, and what it only claims.

    Parameters
    ----------
    upper, lower : list of Fraction
        Exact makespan of every layer; its bound, recomputed or claimed.
    claims : list of Claim
        Everything that is not recomputed.
    """

    upper: list[Fraction]
    lower: list[Fraction]
    claims: list[Claim]

    @property
    def states(self) -> list[State]:
        """Per layer: "claimed" if its bound rests on a claim, "optimal" if a witness proves its makespan, else "open"."""
        claimed = {claim.layer for claim in self.claims}
        return [
            "claimed" if layer in claimed else "optimal" if up == low else "open"
            for layer, (up, low) in enumerate(zip(self.upper, self.lower, strict=True))
        ]

    @property
    def optimal(self) -> int:
        """Layers that a witness proves optimal; those with a claim are not among them."""
        return self.states.count("optimal")

    def __str__(self) -> str:
        states = self.states
        names = sorted({claim.by.removeprefix(CLAIM_OF) for claim in self.claims})
        by = f" ({', '.join(names)})" if names else ""
        claimed = states.count("claimed")
        return (
            f"{len(states)} layer{'s' * (len(states) != 1)}: {self.optimal} proven optimal by witness, "
            f"{claimed} bound{'s rest' if claimed != 1 else ' rests'} on a claim{by}, {states.count('open')} open"
        )

    def refuse_claims(self) -> None:
        """Raise CertificateError, naming the layers and the claims, unless everything is recomputed."""
        if self.claims:
            raise CertificateError(f"{len(self.claims)} claim(s) where none is allowed: {'; '.join(map(str, self.claims))}")


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
        return _read(document)
    except InputError as error:
        raise InputError(f"certificate {path}: {error}") from None


def _read(document: dict[str, Any]) -> Certificate:
    fields(document, "it", FIELDS)
    deployment = _deployment(document["deployment"])
    loads = as_loads(_integers(document["loads"], "loads", deployment.num_experts), "loads", 2)
    if document["loads_sha256"] != array_sha256(loads):
        # Without this, changed loads could pass where a bound is a claim, which is not recomputed.
        raise CertificateError("the loads are not those that loads_sha256 names")
    placement = Placement(_integers(document["phy2log"], "phy2log", deployment.num_slots), deployment.num_experts)
    layers = document["layers"]
    if not isinstance(layers, list):
        raise InputError(f"layers is {shown(layers)}; a list with an entry for every layer is needed")
    upper, bounds = [], []
    for layer, entry in enumerate(layers):
        said = fields(entry, f"layer {layer}", LAYER_FIELDS)
        upper.append(parse(said["upper"], f"layer {layer}: upper"))
        try:
            proof, witness = witness_of(said["proof"], said["witness"])
        except InputError as error:
            raise CertificateError(f"layer {layer}: {error}") from None
        bounds.append(Bound(parse(said["lower"], f"layer {layer}: lower"), proof.kind, witness))
    return Certificate(loads, deployment, placement, upper, bounds)


def _deployment(said: Any) -> Deployment:
    """Return a deployment that is written as this project writes it."""
    plain = (*NUMBERS, "duplicates")
    given = fields(said, "deployment", plain, ("slots_per_gpu", "active"))
    for name in given.keys() - plain:
        if not isinstance(given[name], list):
            raise InputError(f"deployment: {name} is {shown(given[name])}; a list is needed")
    deployment = Deployment(**given)
    written = {name: list(value) if isinstance(value, tuple) else value for name, value in deployment.as_dict().items()}
    if given != written:
        raise InputError(
            "deployment: slots_per_gpu and active are given together, where GPUs are unequal or dead, and nowhere else"
        )
    return deployment


def _integers(rows: Any, name: str, width: int) -> list[list[int]]:
    """Return lists of equally many integers that fit 64 bits: no floats, no flags, no texts."""
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{name} is {shown(rows)}; a list with a list for every layer is needed")
    for layer, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width:
            found = f"has {len(row)} entries" if isinstance(row, list) else f"is {shown(row)}"
            raise InputError(f"{name}[{layer}] {found}; a list of {width} integers is needed")
        for index, value in enumerate(row):
            if type(value) is not int or not 0 <= value < MAX_INTEGER:
                raise InputError(f"{name}[{layer}, {index}] is {shown(value)}; an integer from 0 to {MAX_INTEGER - 1} is needed")
    return rows


def check(path: str | os.PathLike[str], no_claims: bool = False) -> Verdict:
    """Re-check everything a certificate says, in integers and fractions.

    Parameters
    ----------
    path : path
    no_claims : bool, default False
        Whether a bound that rests on a claim is an error.

    Returns
    -------
    Verdict
        It counts what a witness proves apart from what is claimed.

    Raises
    ------
    InputError
        If the file is missing, too large or no certificate.
    PlacementError
        If its map is not legal.
    CertificateError
        If a makespan or a bound is not what it says, or is claimed where no claims are allowed.

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
    verdict = judge(read(path))
    if no_claims:
        verdict.refuse_claims()
    return verdict


def judge(certificate: Certificate) -> Verdict:
    """Re-check everything that a certificate says, as :func:`check` does with a file."""
    loads, deployment = certificate.loads, certificate.deployment
    upper = verify(certificate.placement, loads, deployment)
    if len(certificate.bounds) != len(upper):
        raise CertificateError(f"the certificate has {len(certificate.bounds)} layer entries for {len(upper)} layers of loads")
    over_nodes = sum(bound.kind == "hierarchical" for bound in certificate.bounds)
    if deployment.policy == "hierarchical":
        _refuse_many_sets(deployment, over_nodes)
    claims = []
    for layer, (makespan, said, bound) in enumerate(zip(upper, certificate.upper, certificate.bounds, strict=True)):
        if said != makespan:
            raise CertificateError(f"layer {layer}: upper is {said}, the map's makespan is {makespan}")
        if bound.value > makespan:
            raise CertificateError(f"layer {layer}: lower is {bound.value}, above the map's makespan {makespan}")
        try:
            claims += [Claim(layer, what, by) for what, by in _check_layer(bound, loads[layer], deployment)]
        except (CertificateError, InputError) as error:
            raise CertificateError(f"layer {layer}: {error}") from None
        except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            raise CertificateError(f"layer {layer}: the witness of the {bound.kind} bound is malformed ({error!r})") from None
    return Verdict(upper, [bound.value for bound in certificate.bounds], claims)


def _check_layer(bound: Bound, loads: np.ndarray, deployment: Deployment) -> list[tuple[str, str]]:
    """Check the bound of a layer; return what it takes on trust, and from whom."""
    if deployment.policy == "global" or bound.kind != "hierarchical":
        # A bound for the layer without nodes holds for any map of it.
        return _check_flat(bound, Instance.of_layer(loads, deployment))
    return _check_hierarchical(bound, loads, deployment)


def _check_flat(bound: Bound, instance: Instance) -> list[tuple[str, str]]:
    """Check a bound on a flat instance; return what it takes on trust, and from whom."""
    proof, witness = witness_of(bound.kind, bound.witness)
    if proof.trust != "recomputed":
        return [(str(bound.value), claimant(bound, instance))]
    if proof.value is None:
        raise CertificateError(f"a {bound.kind} bound on an instance without nodes proves nothing")
    proven = proof.value(instance, witness)
    if proven < bound.value:
        proven = reachable(instance, proven)
    if proven < bound.value:
        raise CertificateError(f"lower is {bound.value}, its {bound.kind} witness proves {proven}")
    return []


def _check_hierarchical(bound: Bound, loads: np.ndarray, deployment: Deployment) -> list[tuple[str, str]]:
    """Check that no partition of the groups over the nodes has all its node bounds below the layer's bound.

    Nodes that the witness lists are bounded by their own witness, all others by mean and apportionment.
    """
    claims: list[tuple[str, str]] = []
    size, per_node = deployment.experts_per_group, deployment.groups_per_node
    strong: set[tuple[int, ...]] = set()
    nodes = bound.witness["nodes"]
    if not isinstance(nodes, list):
        raise InputError(f"nodes is {shown(nodes)}; a list is needed")
    for number, entry in enumerate(nodes):
        node = fields(entry, f"nodes[{number}]", NODE_FIELDS)
        groups = _groups(node["groups"], number, deployment)
        name = f"node {list(groups)}"
        if groups in strong:
            raise CertificateError(f"{name} is listed twice")
        value = parse(node["value"], f"{name}: value")
        if value < bound.value:
            raise CertificateError(f"{name}: its value {value} is below lower, {bound.value}, for which it proves nothing")
        instance = Instance.of_node(np.concatenate([loads[g * size : (g + 1) * size] for g in groups]), deployment)
        try:
            found = _check_flat(Bound(value, node["kind"], node["witness"]), instance)
        except (CertificateError, InputError) as error:
            raise CertificateError(f"{name}: {error}") from None
        claims += [(f"{name}: {what}", by) for what, by in found]
        strong.add(groups)
    if bound.value == 0:
        return claims
    rows = loads.reshape(deployment.num_groups, size).tolist()
    sums = [sum(row) for row in rows]
    needs = [counts_below(row, bound.value) for row in rows]
    needed, most = [sum(need) for need in needs], [max(need) for need in needs]
    cap = Instance.of_node(np.concatenate([loads[g * size : (g + 1) * size] for g in range(per_node)]), deployment).max_count
    weak = []
    for groups in itertools.combinations(range(deployment.num_groups), per_node):
        if groups in strong or Fraction(sum(sums[g] for g in groups), deployment.gpus_per_node) >= bound.value:
            continue
        if sum(needed[g] for g in groups) > deployment.slots_per_node or any(most[g] > cap for g in groups):
            continue
        weak.append(groups)
    if cover(weak, deployment.num_groups, MAX_STEPS) is not None:
        raise CertificateError(f"lower is {bound.value}, but the groups can be put on nodes whose bounds all lie below it")
    return claims


def _refuse_many_sets(deployment: Deployment, layers: int) -> None:
    """Refuse a check of more sets of groups than are looked at; of many more their number is not worked out."""
    sets, fewer = layers, min(deployment.groups_per_node, deployment.num_groups - deployment.groups_per_node)
    for chosen in range(fewer):
        sets = sets * (deployment.num_groups - chosen) // (chosen + 1)
        if sets > MAX_SETS:
            raise CertificateError(
                f"{deployment.num_groups} groups with {deployment.groups_per_node} per node have more than {MAX_SETS} node "
                f"problems in {layers} layers"
            )


def _groups(said: Any, number: int, deployment: Deployment) -> tuple[int, ...]:
    """Return the groups that a node hosts."""
    whole = isinstance(said, list) and all(type(g) is int and 0 <= g < deployment.num_groups for g in said)
    if not whole or len(said) != deployment.groups_per_node or sorted(set(said)) != said:
        raise InputError(
            f"nodes[{number}]: groups is {shown(said)}; {deployment.groups_per_node} different ones of "
            f"0 to {deployment.num_groups - 1} in ascending order are needed"
        )
    return tuple(said)


def summary(verdict: Verdict) -> Mapping[str, Any]:
    """Return a verdict as JSON-serialisable data."""
    states = verdict.states
    return {
        "upper": [fraction(value) for value in verdict.upper],
        "lower": [fraction(value) for value in verdict.lower],
        "states": states,
        "optimal": states.count("optimal"),
        "claimed": states.count("claimed"),
        "open": states.count("open"),
        "claims": [str(claim) for claim in verdict.claims],
    }
