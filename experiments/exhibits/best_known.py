"""What is known of the optimum of every published instance, from the rows and the certificates, and which are open.

A published *instance* is the loads of one window, with a deployment, that a row of ``solve`` was measured on. Of each of its
layers the best makespan counts that any row of any method or any certificate reaches, and the best lower bound that has a
witness; a better bound that is only claimed is kept apart, and nothing is closed by it.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.proven import NOT_KEPT, makespans, proofs, witnessed
from eplb_gap.experiments.measuring.rows import Key, Row, Rows
from eplb_gap.experiments.studies.catalogue import STUDIES
from eplb_gap.problem import certificate
from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound, mean_bound
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.metrics import optimality_gap
from eplb_gap.problem.proofs import described

SCHEMA = "eplb-gap best known 1"
FOLDER = "certificates"
"""Of certificates, in ``results/``."""
CLOSED_FORM = "closed form"
"""Source of bounds that need no row: recomputed from the loads."""
SUITES = tuple(dict.fromkeys(study.suite for study in STUDIES.values() if study.instance is not None))


@dataclass(frozen=True)
class Said:
    """One value of one layer, what it rests on and where it is from: a row, a certificate or a closed form."""

    value: Fraction
    rests: str
    source: str


@dataclass
class Known:
    """An instance and all that was said of its layers.

    Parameters
    ----------
    name : str
        Suite, instance, seed and window of the first row that solved it.
    made : dict
        ``study`` and the arguments that its ``instance`` takes; ``window`` where that has several.
    loads : ndarray
        int64 [layers, experts].
    deployment : Deployment
    lowers, uppers : list of list of Said
        By layer.
    dates : dict
        When a source was measured or added, by its name.
    """

    name: str
    made: dict[str, Any]
    loads: np.ndarray
    deployment: Deployment
    lowers: list[list[Said]] = field(default_factory=list)
    uppers: list[list[Said]] = field(default_factory=list)
    dates: dict[str, str] = field(default_factory=dict)

    def say(self, side: list[list[Said]], values: Sequence[Fraction], rests: Sequence[str], source: str, date: str) -> None:
        """Add what a source says of all layers."""
        for of_layer, value, kind in zip(side, values, rests, strict=True):
            of_layer.append(Said(value, kind, source))
        self.dates[source] = date

    @cached_property
    def upper(self) -> list[Said]:
        """The best makespan of every layer."""
        return [min(of, key=lambda said: said.value) for of in _preferred(self.uppers)]

    @cached_property
    def lower(self) -> list[Said]:
        """The best bound of every layer that has a witness; else one whose kind was not kept; else a closed form."""
        return [self._lower(layer, of) for layer, of in enumerate(_preferred(self.lowers))]

    def _lower(self, layer: int, of_layer: list[Said]) -> Said:
        good = [said for said in of_layer if witnessed(said.rests)]
        unknown = [said for said in of_layer if said.rests == NOT_KEPT]
        if good or unknown:
            return max(good or unknown, key=lambda said: said.value)
        bound = self._closed_form(layer)
        return Said(bound.value, bound.kind, CLOSED_FORM)

    def _closed_form(self, layer: int) -> Bound:
        flat = Instance.of_layer(self.loads[layer], self.deployment)
        return best_joint_bound(flat) if self.deployment.policy == "global" else mean_bound(flat)

    @cached_property
    def claimed(self) -> dict[int, Said]:
        """By layer, the best claim where it is above the best bound."""
        found = {}
        for layer, of_layer in enumerate(self.lowers):
            named = [said for said in of_layer if said.rests != NOT_KEPT and not witnessed(said.rests)]
            best = max(named, key=lambda said: said.value, default=None)
            if best is not None and best.value > self.lower[layer].value:
                found[layer] = best
        return found

    @property
    def open(self) -> list[int]:
        """Layers whose optimum is not proven."""
        met = [up.value == low.value and low.rests != NOT_KEPT for up, low in zip(self.upper, self.lower, strict=True)]
        return [layer for layer, closed in enumerate(met) if not closed]

    @property
    def gap(self) -> float:
        """The largest gap of a layer."""
        return max(optimality_gap(up.value, low.value) for up, low in zip(self.upper, self.lower, strict=True))

    def entry(self) -> dict[str, Any]:
        """Return the instance as a line of ``results/best_known.json``.

        ``sources`` lists where values are from and what they rest on; ``by`` has the number of the source of every layer, or the
        one that all have.
        """
        sources: list[list[str]] = []

        def number(said: Said) -> int:
            named = [said.source, said.rests]
            if named not in sources:
                sources.append(named)
            return sources.index(named)

        def side(said: list[Said]) -> dict[str, Any]:
            by = [number(each) for each in said]
            return {"values": [str(each.value) for each in said], "by": by if len(set(by)) > 1 else by[0]}

        sides: dict[str, Any] = {"lower": side(self.lower), "upper": side(self.upper)}
        if self.claimed:
            sides["claimed"] = {str(at): [str(said.value), number(said)] for at, said in self.claimed.items()}
        return {
            "sha256": digest(self.loads, self.deployment),
            "name": self.name,
            "shape": shape(self.deployment),
            "duplicates": self.deployment.duplicates,
            "loads": self.made,
            **sides,
            "sources": sources,
            "date": max((self.dates[source] for source, _ in sources if source in self.dates), default=""),
        }


def _preferred(side: list[list[Said]]) -> list[list[Said]]:
    """Return what is said of every layer, sources that say the best of most layers first: then few are named."""
    best = [{max(of, key=lambda s: s.value).value, min(of, key=lambda s: s.value).value} if of else set() for of in side]
    wins: dict[str, int] = defaultdict(int)
    for values, of_layer in zip(best, side, strict=True):
        for said in of_layer:
            wins[said.source] += said.value in values
    return [sorted(of_layer, key=lambda said: (-wins[said.source], said.source)) for of_layer in side]


def shape(deployment: Deployment) -> str:
    """Return experts/slots/GPUs, and /nodes/groups where there are several: the arguments of a deployment in their order."""
    nodes = (deployment.num_nodes, deployment.num_groups)
    return "/".join(
        map(str, (deployment.num_experts, deployment.num_slots, deployment.num_gpus, *(nodes if nodes != (1, 1) else ())))
    )


def digest(loads: np.ndarray, deployment: Deployment) -> str:
    """Return the sha256 of an instance, 64 hexadecimal digits; rows that are of it alone carry the first 16 as ``hash``."""
    text = hashlib.sha256(f"{deployment}{loads.shape}".encode())
    text.update(np.ascontiguousarray(loads, dtype="<i8").tobytes())
    return text.hexdigest()


def known(measured: Rows, certificates: Path, dates: Mapping[str, str]) -> list[Known]:
    """Return all published instances with what rows and certificates say of them, in the order of the studies.

    Parameters
    ----------
    measured : Rows
    certificates : Path
        Folder of certificates; each that is of an instance counts, layers whose bound is a claim apart.
    dates : mapping
        Day by the name of a certificate's file.

    Raises
    ------
    InputError, PlacementError, CertificateError
        If a certificate does not hold.
    """
    found: dict[str, Known] = {}
    of_row: dict[Key, list[str]] = {}
    for module, study in STUDIES.items():
        if study.instance is None:
            continue
        given = {cell.key: cell.arguments for cell in study.cells()}
        for row in measured.where(suite=study.suite):
            if row.key in given and not row.failed:
                of_row[row.key] = list(_windows(row, module, study.instance, given[row.key], found))
    for row in measured:
        for number, key in enumerate(of_row.get(row.key, ())):
            if key in found:
                _add(found[key], row, number)
    for path in sorted(certificates.glob("*.json")):
        _add_certificate(found, path, dates)
    return [each for each in found.values() if each.lowers]


def _windows(
    row: Row, module: str, instance: Callable[..., Any], arguments: dict[str, Any], found: dict[str, Known]
) -> Iterator[str]:
    """Yield the digest of every window that a row is of, if it has makespans; those that a solve bounded become instances."""
    if "upper" not in row and not isinstance(row.get("lower"), list):
        return
    loads, deployment = instance(**arguments)
    loads = loads.reshape(-1, *loads.shape[-2:])
    bounded = isinstance(row.get("lower"), list)
    layers = loads.shape[1]
    count = len(row.lower) // layers if bounded else len(row.upper) // layers
    for window in range(count):
        key = digest(loads[window], deployment)
        if bounded and key not in found:
            name = f"{row['suite']} {row['instance']}"
            name += f" {row['seed']}" if row["seed"] else ""
            name += f" window {window}" if len(loads) > 1 else ""
            made = {"study": module, **arguments} | ({"window": window} if len(loads) > 1 else {})
            made.pop("method", None)
            found[key] = Known(name, made, loads[window], deployment, [[] for _ in range(layers)], [[] for _ in range(layers)])
        yield key


def _add(one: Known, row: Row, window: int) -> None:
    """Add the bounds and the makespans of a row's window."""
    layers = len(one.loads)
    at = slice(window * layers, (window + 1) * layers)
    source = " | ".join(map(str, row.key))
    date = str(row.get("timestamp", ""))[:10]
    if isinstance(row.get("lower"), list):
        one.say(one.lowers, row.lower[at], proofs(row)[at], source, date)
    reached = [(row["method"], makespans(row))]
    reached += [(name, rows.fractions_in(values)) for name, values in row.get("programs", {}).items()]
    reached += [(name, rows.fractions_in(of.get("upper"))) for name, of in row.get("methods", {}).items()]
    for method, values in reached:
        if values:
            one.say(one.uppers, values[at], [f"map of {method}"] * layers, source, date)


def _add_certificate(found: dict[str, Known], path: Path, dates: Mapping[str, str]) -> None:
    read = certificate.read(path)
    key = digest(read.loads, read.deployment)
    if key not in found:
        return
    verdict, one, source = certificate.judge(read), found[key], f"certificates/{path.name}"
    date = dates.get(path.name, "")
    one.say(one.lowers, verdict.lower, [described(bound) for bound in read.bounds], source, date)
    one.say(one.uppers, verdict.upper, ["map in the certificate"] * len(verdict.upper), source, date)


def text(instances: list[Known], added: Mapping[str, list[str]]) -> str:
    """Return ``results/best_known.json``: compact, an instance a line; ``added`` is sha256 and day of every certificate."""
    lines = [json.dumps(one.entry(), separators=(",", ":")) for one in instances]
    files = json.dumps(dict(sorted(added.items())), separators=(",", ":"))
    joined = ",\n".join(lines)
    return f'{{"schema":"{SCHEMA}","certificates":{files},"instances":[\n{joined}\n]}}\n'


def family(one: Known) -> str:
    """Return what an instance is grouped by: the suite that solved it first, and what of its deployment decides the regime."""
    suite = STUDIES[one.made["study"]].suite
    if one.deployment.policy == "hierarchical":
        return f"{suite}, hierarchical"
    slots = one.deployment.slots_per_gpu
    named = "1 slot" if slots == 1 else f"{slots} slots" if slots <= 4 else "5 slots or more"
    return f"{suite}, {named} per GPU"


def table(measured: Rows, certificates: Path = rows.RESULTS / FOLDER) -> str:
    """Return which instances are open, grouped by family, as a Markdown section."""
    groups: dict[str, list[Known]] = defaultdict(list)
    for one in known(measured, certificates, {}):
        groups[family(one)].append(one)
    body = []
    for name, of in groups.items():
        still = [one for one in of if one.open]
        worst = max(of, key=lambda one: one.gap)
        claimed = sum(one.upper[at].value == said.value for one in of for at, said in one.claimed.items())
        body.append(
            [
                name,
                str(len(of)),
                str(len(still)),
                f"{sum(len(one.open) for one in still)}/{sum(len(one.loads) for one in of)}",
                str(claimed),
                f"{100 * worst.gap:.4f} % ({worst.name})" if worst.gap else "0",
            ]
        )
    header = ["family", "instances", "open", "layers open", "of them only claimed to be closed", "worst gap"]
    return (
        "## Open instances\n\nOf every instance that a row of `solve` bounds, the best makespan of any row or certificate "
        "against the best bound with a witness; open is what these do not prove optimal. Most were measured to a target gap, "
        "not to the end. All values, with what they rest on: [best_known.json](best_known.json), checked by `eplb-gap verify "
        "--best-known`, which names the open ones; a certificate that improves an entry is added by `python -m "
        "eplb_gap.experiments.published.best_known --add CERTIFICATE`.\n\n" + markdown(header, body)
    )
