"""Which of the controllers that were tried to run: the front of served balance against moves, and the rules of the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eplb_gap.heuristics.control.controller import Controller

KEPT = 0.95
"""Part of the largest gain over no EPLB that the recommended point keeps, where neither costs nor a limit decide."""
APART = 0.02
"""Points of a front are shown where they gain so much of its whole gain over the point before."""


@dataclass(frozen=True)
class Tried:
    """A controller on the steps that are chosen on.

    Parameters
    ----------
    controller : Controller
    slots : int
        Of the deployment that it was tried on.
    balancedness : float
    moves : float
        Replicas moved per step and layer.
    most : float
        Replicas per step and layer that it cannot exceed over time, whatever the loads are.
    net : float, optional
        Balancedness if the time that serving waits for maps is counted as time of the fullest GPU; known with a cost profile.
    """

    controller: Controller
    slots: int
    balancedness: float
    moves: float
    most: float
    net: float | None = None

    @property
    def worth(self) -> float:
        """What is compared: balancedness, net of costs where these are known."""
        return self.balancedness if self.net is None else self.net


def most_moves_of(controller: Controller, replicas: int) -> float:
    """Return how many replicas a controller can move at most per step and layer, its first map apart.

    Parameters
    ----------
    controller : Controller
    replicas : int
        Of a layer.
    """
    if controller.kind in ("none", "static"):
        return 0.0
    return (1.0 if controller.moves is None else controller.moves) * replicas / controller.interval


def front(tried: Sequence[Tried]) -> list[Tried]:
    """Return those that serve more than all that move no more, fewest moves first."""
    found: list[Tried] = []
    for one in sorted(tried, key=lambda one: (one.moves, -one.worth)):
        if not found or one.worth > found[-1].worth:
            found.append(one)
    return found


def shown(points: Sequence[Tried], chosen: Tried) -> list[Tried]:
    """Return the points of a front that differ enough to be worth a line, the first, the last and the chosen one in any case."""
    apart = APART * (points[-1].worth - points[0].worth)
    kept = [points[0]]
    for one in points[1:]:
        if one in (points[-1], chosen) or one.worth - kept[-1].worth >= apart:
            kept.append(one)
    return kept


def pool(tried: Sequence[Tried], most_moves: float | None = None) -> list[Tried]:
    """Return those that :func:`choose` chooses from.

    Parameters
    ----------
    tried : sequence of Tried
    most_moves : float, optional
    """
    if most_moves is not None:
        return [one for one in tried if one.most <= most_moves]
    if tried[0].net is not None or all(one.controller.moves is None for one in tried):
        return list(tried)
    return [one for one in tried if one.controller.moves is not None or one.most == 0]


def choose(tried: Sequence[Tried], most_moves: float | None = None) -> Tried:
    """Choose a controller.

    With costs, the one of greatest balancedness net of them. With a limit, the one that serves most of those that can't exceed
    it, whatever the loads that come are like. With neither, of those that limit their moves themselves the one that moves least
    and keeps :data:`KEPT` of their largest gain over no EPLB: one without a limit may have moved little because the loads were
    calm. Without any such one, all count.

    Parameters
    ----------
    tried : sequence of Tried
        One of kind "none" among them, all on one deployment.
    most_moves : float, optional
        Most replicas per step and layer.
    """
    points = front(pool(tried, most_moves))
    if most_moves is not None or points[-1].net is not None:
        return points[-1]
    [without] = [one for one in tried if one.controller.kind == "none"]
    return next(one for one in points if one.worth >= _kept(without.worth, points[-1].worth))


def choose_slots(chosen: Sequence[Tried], without: Sequence[Tried]) -> Tried:
    """Choose among deployments of several numbers of slots: the fewest that keep :data:`KEPT` of the largest gain.

    Parameters
    ----------
    chosen, without : sequence of Tried
        The controller chosen for every number of slots, and no EPLB; the gain is counted from the best of these.
    """
    least = max(one.worth for one in without)
    most = max(one.worth for one in chosen)
    return min((one for one in chosen if one.worth >= _kept(least, most)), key=lambda one: one.slots)


def rule(costs: bool, most_moves: float | None, several_slots: bool) -> str:
    """Return the rule of the choice in words."""
    if most_moves is not None:
        net = "net of costs " if costs else ""
        said = f"serves most {net}of those that cannot move more than {most_moves:g} replicas per step and layer"
    elif costs:
        said = "serves most net of costs"
    else:
        said = f"moves least of those with a limit of moves that keep {100 * KEPT:g} % of their largest gain over no EPLB"
    slots = f"; of the numbers of slots the smallest that keeps {100 * KEPT:g} % of the largest gain" if several_slots else ""
    return said + slots


def _kept(without: float, best: float) -> float:
    return without + KEPT * (best - without)
