"""Whether redundant slots help or hurt decode: a map against one of as few slots as hold every expert.

A method plans that one. Where it planned the map too, what differs is the slots' doing; where the map is of a file or of another
method, both differ, and nothing is put down to the slots alone.

More replicas spread the tokens of an expert, and with them the reads of its weights: where every GPU that gets a token of an
expert reads all of it, a fuller map makes the fullest GPU read more. The best choice of replicas turns this round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from eplb_gap.analysis.decode.activation import CHOICES, Activation, Choice, activation
from eplb_gap.analysis.decode.planning import plan_for_steps
from eplb_gap.analysis.decode.wording import (
    QUANTILES,
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
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace

MOST = 0.5
"""Redundant slots are said to hurt, or to help, where they do in more than this share of steps and layers and in the mean."""


@dataclass(frozen=True)
class Redundancy:
    """A map, and one without redundant slots, on the same decode steps.

    Parameters
    ----------
    name : str
        What the map is called.
    experts : int
        Logical experts of a layer.
    slots, plain_slots : int
        Slots of the live GPUs, and the fewest that hold every expert with equally many on each.
    batch : int or None
        Tokens of a step; None for the steps of the trace.
    own, plain : Activation
        Of the map, and of the method's map with the fewest slots.
    plain_planner : str
        The method that planned that one.
    planner : str or None
        The method that planned the map; None where none of them did, as of a file.
    profile : Profile, optional
        What times are said by.
    planned : Activation, optional
        Of a map with as many slots as the first, planned on steps so that the best choice reads few experts.
    """

    name: str
    experts: int
    slots: int
    plain_slots: int
    batch: int | None
    own: Activation
    plain: Activation
    plain_planner: str
    planner: str | None = None
    profile: Profile | None = None
    planned: Activation | None = None

    @property
    def same_planner(self) -> bool:
        """Whether one method planned both maps, so that they differ by their slots alone."""
        return self.planner == self.plain_planner

    def worse(self, choice: Choice) -> float:
        """Return the share of steps and layers in which the fullest GPU reads more experts than with the fewest slots."""
        return float((self.own.read[choice] > self.plain.read[choice]).mean())

    def better(self, choice: Choice) -> float:
        """Return the share of steps and layers in which it reads fewer."""
        return float((self.own.read[choice] < self.plain.read[choice]).mean())

    def cost(self, choice: Choice) -> float:
        """Return how many more experts the fullest GPU reads, on average, than with the fewest slots; negative is fewer."""
        return self.own.mean(choice) - self.plain.mean(choice)

    @property
    def recovered(self) -> float:
        """Experts that the fullest GPU reads fewer under the best choice of replicas than under the hashed one, on average."""
        return self.own.mean("hashed") - self.own.mean("best")


def redundancy(
    served: RoutingTrace,
    history: np.ndarray,
    placement: Placement,
    deployment: Deployment,
    method: str = "fast",
    name: str = "map",
    batch: int | None = 64,
    profile: Profile | None = None,
    past: RoutingTrace | None = None,
    planner: str | None = None,
    tick: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Redundancy:
    """Compare a map on the decode steps that it serves with one without redundant slots.

    Parameters
    ----------
    served : RoutingTrace
        Tokens that are served.
    history : ndarray
        int64 [windows, layers, experts]; what the map without redundant slots is planned on.
    placement : Placement
        The map; legal.
    deployment : Deployment
        Dead GPUs are left out; the live ones have equally many slots.
    method : str, default "fast"
        Heuristic that plans the map without redundant slots.
    name : str, default "map"
        What to call the map.
    profile : Profile, optional
        With tiles, to say times by.
    past : RoutingTrace, optional
        Tokens whose steps a third map is planned on, which is to read few experts under the best choice.
    planner : str, optional
        The method that planned the map; None where none of them did, as of a file.
    batch, tick
        As of :func:`eplb_gap.analysis.decode.activation.activation`.

    Raises
    ------
    InputError, PlacementError
        As :func:`eplb_gap.analysis.decode.activation.activation`.
    """
    tiles = None if profile is None else profile.tiles
    own = activation(served, placement, deployment, batch, tiles, tick)
    live = deployment.live
    plain = replace(live, num_slots=-(-live.num_experts // live.num_gpus) * live.num_gpus)
    fewest = rebalance(planning_loads(method, history), plain, method)
    least = activation(served, fewest, plain, batch, tiles, tick)
    planned = None
    if past is not None and live.num_slots > live.num_experts:
        fitted = Placement(plan_for_steps(past, live, batch, tick=tick), live.num_experts)
        planned = activation(served, fitted, live, batch, tiles, tick)
    shape = (live.num_experts, live.num_slots, plain.num_slots, batch)
    return Redundancy(name, *shape, own, least, method, planner, profile, planned)


def lines(result: Redundancy) -> list[str]:
    """Return what was found in words: whether redundancy hurts, and what the best choice of replicas recovers."""
    own = result.own
    said = []
    if result.slots == result.experts:
        said.append("There are no redundant slots: no choice of replicas to make, and nothing that it could recover.")
    elif result.slots == result.plain_slots:
        said.append(f"{result.slots} slots are the fewest with equally many on each GPU: with fewer there is nothing to compare.")
    else:
        said += [_hurts(result, "hashed"), _hurts(result, "even"), _planners(result)]
    if result.slots > result.experts:
        said.append(_compared("The best choice reads", own.mean("best"), "hashed", result))
        said.append(_timed("The best choice", own, result))
    if result.planned is not None:
        start = "With a map planned on steps of the planning window the best choice reads"
        said.append(_compared(start, result.planned.mean("best"), "best", result))
        if result.profile is not None:
            said.append(_timed("The best choice with that map", result.planned, result))
    said.append(
        f"The best choice equals its bound on {share(own.proven)} of {own.bound.size} steps and layers, and active experts over "
        f"GPUs, {own.ideal.mean():.2f}, which no map goes below, on {share(float((own.read['best'] == own.ideal).mean()))}."
    )
    return said + drawn(result.batch, own)


def _hurts(result: Redundancy, choice: Choice) -> str:
    """Return whether redundant slots hurt under a choice of replicas, or no more than how the maps differ by two planners."""
    own, more = result.own.mean(choice), result.cost(choice)
    shares = f"more in {share(result.worse(choice))} of steps and layers, fewer in {share(result.better(choice))}"
    seconds, plain = result.own.mean_seconds(choice), result.plain.mean_seconds(choice)
    if seconds is not None and plain is not None:
        shares += f"; in predicted time {1000 * seconds:.3f} ms, {percent(seconds, plain)} against {1000 * plain:.3f}"
    if not result.same_planner:
        return f"Under {choice} choice {result.name} reads {own:.2f} experts a step, {_against(own, result, choice)}: {shares}."
    if result.worse(choice) > MOST and more > 0:
        verb = "hurt"
    elif result.better(choice) > MOST and more < 0:
        verb = "help"
    elif result.worse(choice) == result.better(choice) == 0:
        verb = "change nothing in"
    else:
        verb = "neither clearly hurt nor help"
    return (
        f"Redundant slots {verb} decode under {choice} choice: the fullest GPU reads {own:.2f} experts a step, "
        f"{_against(own, result, choice)}, {shares}."
    )


def _planners(result: Redundancy) -> str:
    """Return who planned both maps."""
    plain = f"{result.plain_slots} slots"
    if result.same_planner:
        return f"{result.plain_planner} planned both maps, that of {result.slots} slots and that of {plain}."
    of = "comes from elsewhere" if result.planner is None else f"is planned by {result.planner}"
    return (
        f"{result.plain_planner} planned the map of {plain}, and {result.name} {of}: slots and planners differ, so that the "
        "difference is not put down to redundant slots."
    )


def _timed(start: str, found: Activation, result: Redundancy) -> str:
    """Return that the best choice is best in reads alone and, with a profile, what it does to the predicted time."""
    best, hashed = found.mean_seconds("best"), found.mean_seconds("hashed")
    if result.profile is None or best is None or hashed is None:
        return READS_ALONE
    verb = "is slower than" if best > hashed else "is faster than" if best < hashed else "takes as long as"
    return (
        f"{start} is best in reads alone: in time predicted by {result.profile.name} it {verb} hashed, "
        f"{1000 * best:.3f} ms against {1000 * hashed:.3f}, {percent(best, hashed)}."
    )


def _compared(start: str, value: float, choice: Choice, result: Redundancy) -> str:
    """Return a sentence on what is read against what the map reads under a choice, and against the fewest slots."""
    told = f"{start} {value:.2f}, {percent(value, result.own.mean(choice))} against {result.name} under {choice} choice"
    return f"{told}." if result.slots == result.plain_slots else f"{told}, {_against(value, result, 'best')}."


def _against(value: float, result: Redundancy, choice: Choice) -> str:
    plain = result.plain.mean(choice)
    return f"{percent(value, plain)} against {plain:.2f} with {result.plain_slots} slots"


def report(result: Redundancy) -> str:
    """Return the comparison as text: a table of both maps under every choice, and the answers."""
    layers, steps = result.own.bound.shape
    header = ["map", "choice", "experts read", "10 %", "median", "90 %", "most", "copies of tokens", *heading(result.profile)]
    body = []
    shown = [(result.name, result.own, result.slots)]
    if result.planned is not None:
        shown.append(("planned for steps", result.planned, result.slots))
    if result.slots > result.plain_slots:
        shown.append((f"{result.plain_slots} slots, {result.plain_planner}", result.plain, result.plain_slots))
    for name, one, slots in shown:
        choices: tuple[Choice, ...] = CHOICES if slots > result.experts else ("best",)
        for choice in choices:
            said = choice if slots > result.experts else "any"
            spread = [f"{value:g}" for value in np.quantile(one.read[choice], QUANTILES, method="nearest")]
            body.append([name, said, f"{one.mean(choice):.2f}", *spread, f"{one.tokens[choice].mean():.1f}", *time(one, choice)])
    title = (
        f"Experts whose weights the fullest GPU reads in a decode step: {result.slots} slots on {result.own.num_gpus} GPUs, "
        f"{steps_of(result.batch)}, {steps} steps of {layers} layers, {result.own.active.mean():.1f} active experts."
    )
    return "\n".join([title, "", markdown(header, body), "", *lines(result), *cited(result.profile)])


def as_dict(result: Redundancy) -> dict[str, Any]:
    """Return the comparison as JSON-ready data."""
    return {
        "map": result.name,
        "slots": result.slots,
        "plain_slots": result.plain_slots,
        "planner": result.planner,
        "plain_planner": result.plain_planner,
        "same_planner": result.same_planner,
        "batch": result.batch,
        "longest_recorded_pass": result.own.longest,
        "steps": int(result.own.bound.shape[1]),
        "layers": int(result.own.bound.shape[0]),
        "left_out_tokens": result.own.left_out,
        "own": summary(result.own, result.profile),
        "plain": summary(result.plain, result.profile),
        "planned": None if result.planned is None else summary(result.planned, result.profile),
        "more_than_plain": {choice: result.cost(choice) for choice in CHOICES},
        "share_worse": {choice: result.worse(choice) for choice in CHOICES},
        "share_better": {choice: result.better(choice) for choice in CHOICES},
        "recovered_by_best": result.recovered,
        "verdict": lines(result),
        "profile": name_and_source(result.profile),
    }
