"""Three questions in one line each: the policy, a point of balance, redundant slots in decode; from the rows of others."""

from __future__ import annotations

from eplb_gap.experiments.loads.routing_sample import other_phases
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies import activated_experts, timed_maps, visit_front
from eplb_gap.experiments.studies.activated_experts import BATCH, EXPERTS, SHOWN
from eplb_gap.experiments.studies.numbers import interval_text
from eplb_gap.experiments.studies.study import Drawn, Study
from eplb_gap.experiments.studies.visit_front import NETWORKS, TILES, longer, winner

SUITES = (visit_front.SUITE, timed_maps.SUITE, activated_experts.SUITE)


def answers(measured: Rows) -> str:
    """Return the answers as a Markdown list."""
    return "\n".join(f"* {line}" for line in (_policy(measured), _point(measured), _slots(measured)))


def _policy(measured: Rows) -> str:
    parts = []
    for network in NETWORKS:
        found = longer(measured, network.profile, other_phases())
        won = winner(found)
        text = "no difference that the interval shows" if won == "neither" else f"{won} takes less"
        percents = interval_text(found.scaled(100), 1, sign=True)
        parts.append(f"{network.title} (`{network.profile}`) {percents} %, {text}")
    return (
        "*Is the hierarchical policy worth it?* Predicted time of a MoE layer under its best map against the best global one, on "
        f"served tokens of other phases, 4 nodes of 8 GPUs, experts by `{TILES}` (95 % interval over layers): {'; '.join(parts)}."
    )


def _point(measured: Rows) -> str:
    row = timed_maps.find(measured)
    fit, (low, high) = timed_maps.hinge(row), row["knee_interval"]
    assert fit.seconds is not None
    return (
        f"*What does a point of balance buy?* Below an imbalance of {fit.knee:.3f} (95 % {low:.3f} to {high:.3f}) nothing; above "
        f"it, 0.01 of imbalance is {10 * fit.beta:.1f} ms of every balanced second (hinge through seven published timed maps of "
        f"{timed_maps.NAME})."
    )


def _slots(measured: Rows) -> str:
    gpus, redundant = SHOWN
    most = max(activated_experts.REDUNDANT)
    hashed, hashed_most, best, best_most = (
        interval_text(activated_experts.against_none(measured, gpus, slots, choice).scaled(100), 1, sign=True)
        for choice in ("hashed", "best")
        for slots in (redundant, most)
    )
    return (
        f"*Do redundant slots hurt decode?* With hashed replicas yes: of {EXPERTS} experts on {gpus} GPUs, {BATCH} tokens a "
        f"step, the fullest GPU reads {hashed} % experts with {redundant} redundant slots and {hashed_most} % with {most}; with "
        f"the best choice of replicas {best} % and {best_most} % (recorded sample, 95 % interval over layers)."
    )


def table(measured: Rows) -> str:
    """Return the answers as a section."""
    return f"## Three answers\n\n{answers(measured)}\n"


STUDY = Study(visit_front.SUITE, job="network", table=table, readme={"time answers": Drawn(SUITES, answers)})
