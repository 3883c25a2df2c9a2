"""What no controller can exceed at one interval, certified, and what each loses to it (part of ``eplb-gap bench control``)."""

from __future__ import annotations

from fractions import Fraction

from eplb_gap.analysis.replay.limits import Limit, certified_limit
from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.loads.series import RECORDED, SERIES, series
from eplb_gap.experiments.loads.traces import POLICIES
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import finding
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows
from eplb_gap.experiments.studies import controllers
from eplb_gap.experiments.studies.controllers import (
    ADAPTIVE,
    ADAPTIVE_SMALL,
    FORESEEING,
    FORESEEING_SMALL,
    FULL,
    INTERVAL,
    NONE,
    SAVED,
)
from eplb_gap.experiments.studies.numbers import Number
from eplb_gap.experiments.studies.study import Study

SUITE = "control_limits"
LIMIT = "limit"
PARTS = ("mean", "step_lower", "step_upper", "interval_lower", "interval_upper")
SHOWN = (NONE, SAVED, FULL, ADAPTIVE_SMALL, ADAPTIVE, FORESEEING_SMALL, FORESEEING)
TODAY = {"hierarchical": (0.7679, 0.8200), "global": (0.8186, 0.8485)}
"""What a prototype's budgeted controller served on the recorded steps, and one that planned on the steps to come."""


def instance(name: str, policy: str) -> Instance:
    """Return the steps of a recording under a policy."""
    return series(name).loads, POLICIES[policy]


def limit_cell(name: str, policy: str) -> Fields:
    """Certify what no controller exceeds that changes its maps every interval."""
    loads, deployment = instance(name, policy)
    found = certified_limit(loads, deployment, INTERVAL, SERIES[name].first)
    return {
        "kind": "finding",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"interval": INTERVAL, "first": SERIES[name].first},
        "status": "legal",
        **{part: rows.fraction(getattr(found, part)) for part in PARTS},
    }


def cells() -> list[Cell]:
    """Return the cells: both recordings under both policies."""
    return [
        Cell(SUITE, f"{name} {policy}", LIMIT, limit_cell, {"name": name, "policy": policy})
        for name in RECORDED
        for policy in POLICIES
    ]


def limit(row: Row) -> Limit:
    """Return the limit that a row holds."""
    return Limit(row["parameters"]["interval"], 0, *(Fraction(row[part]) for part in PARTS))


def _find(measured: Rows, name: str, policy: str) -> Limit:
    return limit(measured.one(suite=SUITE, trace=name, policy=policy))


def table(measured: Rows) -> str:
    """Return the chain from the mean to every controller as Markdown."""
    body = []
    for name in RECORDED:
        for policy in POLICIES:
            found = _find(measured, name, policy)
            excess = [100 * float(getattr(found, part) / found.mean - 1) for part in PARTS[1:]]
            least, most = found.balancedness
            body.append(
                [
                    f"{name}, {policy}",
                    *(f"{low:.2f} to {high:.2f}" for low, high in (excess[:2], excess[2:])),
                    f"{least:.4f} to {most:.4f}",
                    *(_regret(measured, found, name, policy, method) for method in SHOWN),
                ]
            )
    header = [
        "recording, policy",
        "every step, %",
        "every interval, %",
        "best controller serves",
        *(f"`{method}`" for method in SHOWN),
    ]
    return (
        "## What no controller exceeds\n\nExcess of the largest over the mean GPU load, summed over steps and layers, in exact "
        f"fractions: of the best map of every step on its own (integrality, hierarchy), and of every {INTERVAL} steps (price of "
        "the interval), each from its certified bound to what maps reach that are made for these very steps. The bound of the "
        f"intervals holds for every controller that changes its maps every {INTERVAL} steps, whatever it knows or moves. Behind "
        "it the certified regret: by how many % of the mean load controllers exceed the best maps, at least and at most.\n\n"
        + markdown(header, body)
        + "\n"
    )


def _regret(measured: Rows, found: Limit, name: str, policy: str, method: str) -> str:
    served = Fraction(controllers.find(measured, name, policy, method)["served"])
    low, high = (100 * part for part in found.regret(served))
    return f"{max(low, 0.0):.2f} to {high:.2f}"


def levels(measured: Rows) -> list[list[str]]:
    """Return what is asked and measured of the adaptive controller's distance to one that knows the future."""
    body = []
    for policy, (controller, seen) in TODAY.items():
        asked = (seen - controller) / 2
        found = _find(measured, "steps", policy)
        for method in (ADAPTIVE_SMALL, ADAPTIVE):
            row = controllers.find(measured, "steps", policy, method)
            distance = seen - row["balancedness"]
            body.append(
                [
                    f"{method}, steps, {policy}, interval {INTERVAL}: distance to the prototype's clairvoyant ({seen:.4f})",
                    f"<= {100 * asked:.2f} points, half of today's",
                    f"{100 * distance:.2f} points; certified regret {_regret(measured, found, 'steps', policy, method)} %",
                    yes_or_no(distance <= asked),
                ]
            )
    return body


def _limit_number(policy: str, end: int) -> Number:
    return Number(((SUITE, f"steps {policy}", LIMIT),), lambda rows: f"{limit(rows[0]).balancedness[end]:.3f}")


STUDY = Study(
    SUITE,
    job="control",
    about="certified limits of every controller at one interval, on both recordings",
    cells=cells,
    shapes=(finding(dict.fromkeys(PARTS, "p/q")),),
    instance=instance,
    table=table,
    levels=levels,
    numbers={
        f"control-limit-{end}-{policy}": _limit_number(policy, at)
        for policy in POLICIES
        for at, end in enumerate(("least", "most"))
    },
)
