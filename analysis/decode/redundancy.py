"""Whether redundant slots help or hurt decode: a map against one of as few slots as hold every expert, by the same planner.

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
from eplb_gap.analysis.step_time.profile import Profile
from eplb_gap.analysis.text import markdown
from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.registry import planning_loads
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace

QUANTILES = (0.1, 0.5, 0.9, 1.0)


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
    profile: Profile | None = None
    planned: Activation | None = None

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
    return Redundancy(name, live.num_experts, live.num_slots, plain.num_slots, batch, own, least, profile, planned)


def lines(result: Redundancy) -> list[str]:
    """Return what was found in words: whether redundancy hurts, and what the best choice of replicas recovers."""
    own = result.own
    said = []
    if result.slots == result.experts:
        said.append("There are no redundant slots: no choice of replicas to make, and nothing that it could recover.")
    elif result.slots == result.plain_slots:
        said.append(f"{result.slots} slots are the fewest with equally many on each GPU: with fewer there is nothing to compare.")
    else:
        for choice in ("hashed", "even"):
            more = result.cost(choice)
            verb = "hurt" if more > 0 else "help" if more < 0 else "change nothing in"
            said.append(
                f"Redundant slots {verb} decode under {choice} choice: the fullest GPU reads {own.mean(choice):.2f} experts a "
                f"step, {_against(own.mean(choice), result, choice)}."
            )
    if result.slots > result.experts:
        said.append(_compared("The best choice reads", own.mean("best"), "hashed", result))
    if result.planned is not None:
        start = "With a map planned on steps of the planning window the best choice reads"
        said.append(_compared(start, result.planned.mean("best"), "best", result))
    said.append(
        f"The best choice equals its bound on {share(own.proven)} of {own.bound.size} steps and layers, and active experts over "
        f"GPUs, {own.ideal.mean():.2f}, which no map goes below, on {share(float((own.read['best'] == own.ideal).mean()))}."
    )
    if own.left_out:
        said.append(f"{own.left_out} tokens that fill no batch are left out.")
    return said


def _compared(start: str, value: float, choice: Choice, result: Redundancy) -> str:
    """Return a sentence on what is read against what the map reads under a choice, and against the fewest slots."""
    told = f"{start} {value:.2f}, {percent(value, result.own.mean(choice))} against {result.name} under {choice} choice"
    return f"{told}." if result.slots == result.plain_slots else f"{told}, {_against(value, result, 'best')}."


def _against(value: float, result: Redundancy, choice: Choice) -> str:
    plain = result.plain.mean(choice)
    return f"{percent(value, plain)} against {plain:.2f} with {result.plain_slots} slots"


def report(result: Redundancy) -> str:
    """Return the comparison as text: a table of both maps under every choice, and the answers."""
    of = "the recorded steps" if result.batch is None else f"batches of {result.batch} tokens"
    layers, steps = result.own.bound.shape
    header = ["map", "choice", "experts read", "10 %", "median", "90 %", "most", "copies of tokens", *heading(result.profile)]
    body = []
    shown = [(result.name, result.own, result.slots)]
    if result.planned is not None:
        shown.append(("planned for steps", result.planned, result.slots))
    if result.slots > result.plain_slots:
        shown.append((f"{result.plain_slots} slots", result.plain, result.plain_slots))
    for name, one, slots in shown:
        choices: tuple[Choice, ...] = CHOICES if slots > result.experts else ("best",)
        for choice in choices:
            said = choice if slots > result.experts else "any"
            spread = [f"{value:g}" for value in np.quantile(one.read[choice], QUANTILES, method="nearest")]
            body.append([name, said, f"{one.mean(choice):.2f}", *spread, f"{one.tokens[choice].mean():.1f}", *time(one, choice)])
    title = (
        f"Experts whose weights the fullest GPU reads in a decode step: {result.slots} slots on {result.own.num_gpus} GPUs, "
        f"{of}, {steps} steps of {layers} layers, {result.own.active.mean():.1f} active experts."
    )
    return "\n".join([title, "", markdown(header, body), "", *lines(result), *cited(result.profile)])


def as_dict(result: Redundancy) -> dict[str, Any]:
    """Return the comparison as JSON-ready data."""
    return {
        "map": result.name,
        "slots": result.slots,
        "plain_slots": result.plain_slots,
        "batch": result.batch,
        "steps": int(result.own.bound.shape[1]),
        "layers": int(result.own.bound.shape[0]),
        "left_out_tokens": result.own.left_out,
        "own": summary(result.own),
        "plain": summary(result.plain),
        "planned": None if result.planned is None else summary(result.planned),
        "cost_of_redundancy": {choice: result.cost(choice) for choice in CHOICES},
        "recovered_by_best": result.recovered,
        "verdict": lines(result),
        "profile": name_and_source(result.profile),
    }


def summary(found: Activation) -> dict[str, Any]:
    """Return what was counted as JSON-ready data."""
    return {
        "active": float(found.active.mean()),
        "bound": float(found.bound.mean()),
        "ideal": float(found.ideal.mean()),
        "proven": found.proven,
        "read": {
            choice: {
                "mean": found.mean(choice),
                "quantiles": {f"{q:g}": float(np.quantile(found.read[choice], q, method="nearest")) for q in QUANTILES},
                "by_layer": found.read[choice].mean(axis=1).tolist(),
            }
            for choice in CHOICES
        },
        "tokens": {choice: float(found.tokens[choice].mean()) for choice in CHOICES},
        "expert_seconds": None if found.seconds is None else {choice: found.mean_seconds(choice) for choice in CHOICES},
    }


def heading(profile: Profile | None) -> list[str]:
    """Return the heading of the column of times, which is there with a profile alone."""
    return [] if profile is None else ["predicted ms"]


def time(found: Activation, choice: Choice) -> list[str]:
    """Return the cell of that column."""
    seconds = found.mean_seconds(choice)
    return [] if seconds is None else [f"{1000 * seconds:.3f}"]


def cited(profile: Profile | None) -> list[str]:
    """Return what predicted times go with: what they are the time of, and the profile's name and source."""
    if profile is None:
        return []
    return [
        "Predicted time of a step's experts, all layers, of the GPUs that take longest; attention and network are not in it.",
        f"Profile {profile.name}: {profile.source}; measured on {profile.measured_on}.",
    ]


def name_and_source(profile: Profile | None) -> dict[str, str] | None:
    """Return the same as JSON-ready data."""
    fields = ("name", "source", "measured_on")
    return None if profile is None else {field: getattr(profile, field) for field in fields}


def percent(value: float, than: float) -> str:
    """Return by how much a value is above another, in words."""
    return f"{100 * (value / than - 1):+.1f} %"


def share(value: float) -> str:
    """Return a share in words: all of it is said only where it is all."""
    return "100 %" if value == 1 else f"{min(100 * value, 99.9):.1f} %"
