"""Three questions in one line each: the policy, a point of balance, redundant slots in decode; from the rows of others."""

from __future__ import annotations

from eplb_gap.experiments.loads.routing_sample import other_phases
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.measuring.statistics import Interval
from eplb_gap.experiments.studies import activated_experts, timed_maps, visit_front
from eplb_gap.experiments.studies.activated_experts import BATCH, EXPERTS, SHOWN
from eplb_gap.experiments.studies.numbers import interval_text
from eplb_gap.experiments.studies.policy_times import longer, winner
from eplb_gap.experiments.studies.predicted_layers import NETWORKS, OF_EXPERTS, TILES
from eplb_gap.experiments.studies.study import Drawn, Study

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
        parts.append(f"{network.title} (`{network.profile}`) {_signed(found)} %, {text}")
    return (
        "*Is the hierarchical policy worth it?* Predicted time of network and experts under its best map against the best global "
        f"one, on served tokens of other phases, 4 nodes of 8 GPUs, {OF_EXPERTS} by `{TILES}` (95 % interval over layers): "
        f"{'; '.join(parts)}."
    )


def _point(measured: Rows) -> str:
    row = timed_maps.find(measured)
    fit, (low, high) = timed_maps.hinge(row), row["knee_interval"]
    assert fit.seconds is not None
    least, most = row["beta_interval"]
    above = f"0.01 of imbalance is {10 * fit.beta:.1f} ms (95 % {10 * least:.1f} to {10 * most:.1f}) of every balanced second"
    if least <= 0:
        above = "that time rises is not shown"
    where = f"Below an imbalance of {fit.knee:.3f} (95 % {low:.3f} to {high:.3f}) nothing; above it, " if low > 1 else ""
    return (
        f"*What does a point of balance buy?* {where}{above} (hinge through {len(row['measured'])} published timed maps of "
        f"{timed_maps.NAME}{'' if where else '; that there is a flat part is not shown'})."
    )


def _slots(measured: Rows) -> str:
    gpus, redundant = SHOWN
    most = max(activated_experts.REDUNDANT)
    (hashed, hashed_most), (best, best_most) = (
        [activated_experts.against_none(measured, gpus, slots, choice) for slots in (redundant, most)]
        for choice in ("hashed", "best")
    )
    return (
        f"*Do redundant slots hurt decode?* With hashed replicas {shown(hashed)}, with the best choice {shown(best)}: "
        f"of {EXPERTS} experts on {gpus} GPUs, {BATCH} tokens a step, the experts that the fullest GPU reads change by "
        f"{_signed(hashed)} % with {redundant} redundant slots and by {_signed(hashed_most)} % with {most}; with the best choice "
        f"by {_signed(best)} % and {_signed(best_most)} % (recorded sample, 95 % interval over layers)."
    )


def shown(found: Interval) -> str:
    """Return whether an interval says that something grows."""
    return "yes" if found.low > 0 else "no" if found.high < 0 else "not shown"


def _signed(found: Interval) -> str:
    return interval_text(found.scaled(100), 1, sign=True)


def table(measured: Rows) -> str:
    """Return the answers as a section."""
    return f"## Three answers\n\n{answers(measured)}\n"


STUDY = Study(visit_front.SUITE, job="network", table=table, blocks={"time answers": Drawn(SUITES, answers)})
