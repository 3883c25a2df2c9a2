"""The predicted time of a map on a window beside the time that no map goes below, from makespans and bounds that are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.analysis.evaluate import makespan_imbalance
from eplb_gap.analysis.network.traffic import NetworkTraffic
from eplb_gap.analysis.step_time.predict import StepTime, least_time, map_time, step_time
from eplb_gap.analysis.step_time.profile import PARTS, Profile
from eplb_gap.analysis.step_time.words import reached, seconds, unit, within_scatter
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement


@dataclass(frozen=True)
class Timed:
    """A predicted time and what no map goes below, part by part as the profile has them.

    Parameters
    ----------
    time, least : StepTime
        Of the experts, what no map goes below whose replicas share evenly.
    tokens : int or None
        Tokens in every layer that the time of the network is that of, sent at once; None without it.
    """

    time: StepTime
    least: StepTime
    tokens: int | None = None

    @property
    def gap(self) -> float | None:
        """Part of the least time by which the map's is longer; None without a hinge."""
        up, low = self.time.relative, self.least.relative
        return None if up is None or low is None else up / low - 1

    def parts(self) -> list[tuple[str, float, float | None]]:
        """Return the parts beside the hinge that are known: name, seconds, and the least seconds where a bound is known."""
        named = (
            ("experts", self.time.expert_seconds, self.least.expert_seconds),
            ("network", self.time.network_seconds, self.least.network_seconds),
        )
        return [(name, up, low) for name, up, low in named if up is not None]


def by_hinge(profile: Profile, makespans: list[Fraction], bounds: list[Fraction], means: list[Fraction]) -> Timed:
    """Return what the hinge alone says of makespans and their lower bounds."""
    return Timed(step_time(profile, makespan_imbalance(makespans, means)), step_time(profile, makespan_imbalance(bounds, means)))


def with_parts(
    found: Timed,
    placed: Placement,
    loads: np.ndarray,
    bounds: Sequence[Fraction],
    deployment: Deployment,
    steps: int,
    traffic: NetworkTraffic | None = None,
) -> Timed:
    """Add what the profile's tiles say of the experts, and its network of the tokens.

    Parameters
    ----------
    found : Timed
        What the hinge says.
    placed : Placement
    loads : ndarray
        int64 [layers, experts].
    bounds : sequence of Fraction [layers]
    deployment : Deployment
        With the nodes that tokens cross, where traffic is given.
    steps : int
        Steps that the loads sum; tiles are of one step alone, and left out for more. The network takes all tokens of the window
        as one dispatch.
    traffic : NetworkTraffic, optional
        Of the map, counted for the dispatch of the profile's network.
    """
    profile = found.time.profile
    if steps > 1:
        if profile.network is None or traffic is None:
            return found
        profile = replace(profile, tiles=None)
    layers = None if traffic is None else [layer.counted for layer in traffic.layers]
    time = map_time(profile, placed, loads, deployment, layers)
    least = least_time(profile, bounds, loads, deployment, None if traffic is None else _visits(traffic))
    return Timed(
        replace(found.time, expert_seconds=time.expert_seconds, network_seconds=time.network_seconds),
        replace(found.least, expert_seconds=least.expert_seconds, network_seconds=least.network_seconds),
        None if time.network_seconds is None or traffic is None else traffic.tokens,
    )


def check_told(profile: Profile, steps: int, routed: bool) -> None:
    """Refuse a profile that says nothing of maps on windows of so many steps, with or without routing.

    Raises
    ------
    InputError
        Naming the parts that the profile has, and what they need.
    """
    if profile.hinge is not None or (profile.tiles and steps == 1) or (profile.network and routed):
        return
    needs = []
    if profile.tiles is not None:
        needs.append(f"its tiles are of one step, and the windows sum {steps}: loads of single steps are needed")
    if profile.network is not None:
        needs.append("its network needs the experts of every token: --routing is missing")
    raise InputError(f"--profile is {profile.name}, which has no hinge; {'; '.join(needs)}")


def require_hinge(profile: Profile, command: str) -> None:
    """Refuse a profile without a hinge, for a command that asks nothing else of it.

    Raises
    ------
    InputError
    """
    if profile.hinge is None:
        has = [name for name in PARTS if getattr(profile, name) is not None]
        raise InputError(f"--profile is {profile.name}, which has {' and '.join(has)} alone; {command} needs one with a hinge")


def measured_elsewhere(profile: Profile, gpus: int, nodes: int) -> list[str]:
    """Return a sentence where the profile is known to be of another number of GPUs or nodes than a deployment has."""
    if profile.gpus in (None, gpus) and profile.nodes in (None, nodes):
        return []
    return [f"Profile measured on {_size(profile.gpus, profile.nodes)}; deployment has {_size(gpus, nodes)}."]


def notes(profile: Profile, steps: int, gpus: int, nodes: int, traffic: NetworkTraffic | None = None) -> list[str]:
    """Return what must be known beside the times, a sentence each, on so many GPUs and nodes."""
    said = measured_elsewhere(profile, gpus, nodes)
    if steps > 1:
        said.append(f"A window sums {steps} steps; single steps are no better balanced than their sum.")
        if profile.tiles is not None:
            said.append("Times of tiles are of one step, and none are given for windows of several.")
    elif profile.tiles is not None:
        said.append(
            "Experts: even shares over replicas, each of which is read, and the bound is that of such maps; with the best choice "
            "of replica for every token (explain --decode) a map may take less."
        )
    if profile.network is not None:
        if traffic is None:
            said.append("The profile's network says nothing without --routing.")
        else:
            said.append("Network: dispatch and combine, summed over layers, of all tokens of the window as one dispatch a layer.")
    if profile.hinge is not None and (profile.tiles is not None or profile.network is not None):
        said.append("Experts and network are parts of the step, not to be added to the time of the hinge.")
    return said


def as_dict(found: Timed) -> dict[str, Any]:
    """Return a time as JSON-ready data, without the profile; seconds are None where the profile has none."""
    time, least = found.time, found.least
    lower = least.relative if least.seconds is None else least.seconds
    data: dict[str, Any] = {"imbalance": time.imbalance, "lower_imbalance": least.imbalance}
    if time.relative is not None:
        data |= {"relative": time.relative, "seconds": time.seconds, "lower": lower, "gap": found.gap}
        data["dead_zone"] = time.inside_dead_zone
        data["at_knee"] = time.at_knee
    for name, up, low in found.parts():
        data[f"{name}_seconds"], data[f"{name}_seconds_lower"] = up, low
    if time.expert_seconds is not None:
        data["experts_shares"] = EVEN
    if found.tokens is not None:
        data["network_tokens"] = found.tokens
    return data


def named(profile: Profile) -> dict[str, Any]:
    """Return what every predicted time in JSON goes with."""
    told: dict[str, Any] = {
        "profile": profile.name,
        "source": profile.source,
        "measured_on": profile.measured_on,
        "timed": profile.timed,
    }
    hinge = profile.hinge
    if hinge is not None:
        told |= {"knee": hinge.knee, "knee_interval": hinge.knee_interval, "beta": hinge.beta, "scatter": profile.scatter}
    return {**told, "unit": unit(profile)}


EVEN = "even shares over replicas"
HEADER = ("imbalance", "time", "no map below", "gap", "dead zone")


def cells(found: Timed) -> list[str]:
    """Return the cells of :data:`HEADER`."""
    time, up, low = found.time, found.time.relative, found.least.relative
    if up is None or low is None or found.gap is None:
        return [f"{time.imbalance:.4f}", "-", "-", "-", "-"]
    profile = time.profile
    return [
        f"{time.imbalance:.4f}",
        reached(profile, up),
        reached(profile, low),
        f"{100 * found.gap:.2f} %" + (", within scatter" if within_scatter(profile, up - low) else ""),
        "at the knee's edge" if time.at_knee else "inside" if time.inside_dead_zone else "outside",
    ]


def part_lines(found: Timed) -> list[str]:
    """Return what tiles and network say, in words."""
    profile = found.time.profile
    what = "" if profile.hinge is not None or profile.timed == "a step" else f" ({profile.timed})"
    said = []
    for name, up, low in found.parts():
        if name == "experts":
            line, maps = f"experts{what} {seconds(up)} a step with {EVEN}", "no map that shares evenly"
        else:
            line, maps = f"network {seconds(up)} for the window's {found.tokens} tokens as one dispatch a layer", "no map"
        said.append(line if low is None else f"{line}, {maps} below {seconds(low)}{_gap(up, low)}")
    return said


def _size(gpus: int | None, nodes: int | None) -> str:
    named = [f"{number} {name}{'' if number == 1 else 's'}" for number, name in ((gpus, "GPU"), (nodes, "node")) if number]
    return " in ".join(named)


def _gap(up: float, low: float) -> str:
    return f" (gap {100 * (up / low - 1):.1f} %)" if low else ""


def _visits(traffic: NetworkTraffic) -> list[Fraction] | None:
    """Return the bounds on visits that a time can be bounded by; None where tokens do not come evenly from all GPUs."""
    if traffic.sources != "even":
        return None
    if traffic.dispatch == "none":
        return [Fraction(sum(layer.counted.gpu_loads)) for layer in traffic.layers]
    known = [layer.bound.visits for layer in traffic.layers if layer.bound is not None]
    return known if len(known) == len(traffic.layers) else None
