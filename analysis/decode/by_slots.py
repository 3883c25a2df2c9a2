"""Activated experts over numbers of slots: what redundant slots cost or save under each choice of replicas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from eplb_gap.analysis.capacity import slot_options
from eplb_gap.analysis.decode.activation import CHOICES, Activation, activation
from eplb_gap.analysis.decode.wording import (
    READS_ALONE,
    cited,
    drawn,
    heading,
    name_and_source,
    percent,
    share,
    steps_of,
    summary,
    time,
)
from eplb_gap.analysis.step_time.profile import Profile
from eplb_gap.analysis.text import markdown
from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.registry import planning_loads
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.routing.trace import RoutingTrace

NEARLY = 0.01
"""Relative distance to active experts over GPUs at which further slots are said to buy nothing."""


@dataclass(frozen=True)
class Slots:
    """One number of slots of :func:`activated_by_slots`.

    Parameters
    ----------
    slots : int
        Slots of a layer.
    found : Activation
        Of the method's map with so many.
    planner : str
        The method.
    """

    slots: int
    found: Activation
    planner: str


def activated_by_slots(
    served: RoutingTrace,
    history: np.ndarray,
    deployment: Deployment,
    most_slots: int | None = None,
    method: str = "fast",
    batch: int | None = 64,
    profile: Profile | None = None,
    tick: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Slots]:
    """Count activated experts for all numbers of slots, from the fewest that hold every expert upwards.

    Parameters
    ----------
    served : RoutingTrace
        Tokens that are served.
    history : ndarray
        int64 [windows, layers, experts]; what the maps are planned on.
    deployment : Deployment
        Live GPUs, nodes, groups, duplicates; its own number of slots does not matter.
    most_slots : int, optional
        Largest number of slots; by default two per expert.
    method : str, default "fast"
        Heuristic that plans the maps.
    batch
        As of :func:`eplb_gap.analysis.decode.activation.activation`.
    profile : Profile, optional
        With tiles, to say times by.
    tick : callable, optional
        Called with (what, done, total) before every number of slots.

    Returns
    -------
    list of Slots

    Raises
    ------
    InputError, PlacementError
        As :func:`eplb_gap.analysis.decode.activation.activation` and :func:`eplb_gap.analysis.capacity.slot_options`.
    """
    live = deployment.live
    live.require_regular("a count of slots")
    options = slot_options(live, 2 * live.num_experts if most_slots is None else most_slots)
    tiles = None if profile is None else profile.tiles
    found = []
    for done, slots in enumerate(options):
        tick(f"{slots} slots", done, len(options))
        shape = replace(live, num_slots=slots)
        placed = rebalance(planning_loads(method, history), shape, method)
        found.append(Slots(slots, activation(served, placed, shape, batch, tiles), method))
    return found


def lines(steps: list[Slots], batch: int | None, profile: Profile | None = None) -> list[str]:
    """Return in words which numbers of slots are best under each choice of replicas."""
    first, most = steps[0], steps[-1]
    said = []
    for choice in ("hashed", "even"):
        best = min(steps, key=lambda step: step.found.mean(choice))
        worst = most.found.mean(choice)
        more = f"{most.slots} slots read {worst:.2f}, {percent(worst, first.found.mean(choice))} against {first.slots}"
        said.append(f"Under {choice} choice {best.slots} slots read the fewest, {best.found.mean(choice):.2f}; {more}.")
    best = min(steps, key=lambda step: step.found.mean("best"))
    near = next((step for step in steps if step.found.mean("best") <= (1 + NEARLY) * step.found.ideal.mean()), None)
    said.append(
        f"Under the best choice {best.slots} slots read the fewest, {best.found.mean('best'):.2f}, "
        f"{percent(best.found.mean('best'), first.found.mean('best'))} against {first.slots}."
    )
    if near is not None:
        said.append(
            f"With {near.slots} slots it is within {100 * NEARLY:g} % of active experts over GPUs, "
            f"{near.found.ideal.mean():.2f}: more slots buy no fewer."
        )
    proven = share(min(step.found.proven for step in steps))
    said.append(f"The best choice equals its bound on {proven} of steps and layers.")
    said += _timed(steps, profile)
    said.append(f"{first.planner} planned every map.")
    return said + drawn(batch, first.found)


def _timed(steps: list[Slots], profile: Profile | None) -> list[str]:
    """Return that the best choice is best in reads alone and, with a profile, at which slots it is slower than the hashed one."""
    if profile is None:
        return [READS_ALONE]
    times = {(step.slots, choice): step.found.mean_seconds(choice) or 0.0 for step in steps for choice in CHOICES}
    (slots, choice), least = min(times.items(), key=lambda one: one[1])
    slower = [step for step in steps if times[step.slots, "best"] > times[step.slots, "hashed"]]
    start = f"The best choice is best in reads alone: in time predicted by {profile.name} it"
    if slower:
        worst = max(slower, key=lambda step: times[step.slots, "best"] / times[step.slots, "hashed"])
        best, hashed = times[worst.slots, "best"], times[worst.slots, "hashed"]
        said = (
            f"{start} is slower than hashed at {len(slower)} of {len(steps)} numbers of slots, most with {worst.slots}: "
            f"{1000 * best:.3f} ms against {1000 * hashed:.3f}, {percent(best, hashed)}."
        )
    else:
        said = f"{start} is slower than hashed at no number of slots."
    of = "any" if len({times[slots, each] for each in CHOICES}) == 1 else choice
    return [said, f"The least time so predicted is {1000 * least:.3f} ms, of {slots} slots under {of} choice."]


def report(steps: list[Slots], batch: int | None, profile: Profile | None = None) -> str:
    """Return the result as text: the table of slots and the answers."""
    found = steps[0].found
    title = (
        f"Experts whose weights the fullest of {found.num_gpus} GPUs reads in a decode step, mean: {steps_of(batch)}, "
        f"{found.bound.shape[1]} steps of {found.bound.shape[0]} layers, {found.active.mean():.1f} active experts."
    )
    header = ["slots", *CHOICES, "best against hashed", *(f"copies, {choice}" for choice in CHOICES)]
    header += [f"{what}, {choice}" for what in heading(profile) for choice in CHOICES]
    body = []
    for step in steps:
        one = step.found
        copies = [f"{one.tokens[choice].mean():.1f}" for choice in CHOICES]
        read = [f"{one.mean(choice):.2f}" for choice in CHOICES]
        body.append([str(step.slots), *read, percent(one.mean("best"), one.mean("hashed")), *copies])
        body[-1] += [cell for choice in CHOICES for cell in time(one, choice)]
    return "\n".join([title, "", markdown(header, body), "", *lines(steps, batch, profile), *cited(profile)])


def as_dict(steps: list[Slots], batch: int | None, profile: Profile | None = None) -> dict[str, Any]:
    """Return the result as JSON-ready data."""
    return {
        "planner": steps[0].planner,
        "batch": batch,
        "longest_recorded_pass": steps[0].found.longest,
        "left_out_tokens": steps[0].found.left_out,
        "steps": [{"slots": step.slots, **summary(step.found, profile)} for step in steps],
        "verdict": lines(steps, batch, profile),
        "profile": name_and_source(profile),
    }
