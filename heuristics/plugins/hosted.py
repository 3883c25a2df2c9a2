"""A controller at work inside a server: the sessions that a replay steps through, fed by the calls of the host.

A *step* of the controller is a sample of the history that a host hands over, and a whole call of a host that hands over one sum.
Of vLLM's sums ``interval`` and ``window`` count calls, one every ``step_interval`` of its own: with ``interval=2`` every second
call plans and the others return the map in use. Of SGLang's histories, which hold what came since the last call, they count
forward passes, as in a replay, and the first call behind every multiple of ``interval`` plans. ``lag`` says which steps the last
map had not served yet; when a map serves is for the host to say.

What the controller remembers lives in this module, model by model, told apart by layers and experts: a policy that is registered
again goes on with it, another deployment (scaled, a rank lost) or another controller starts anew. Of the past no more is kept
than the kind of controller looks back on, 8 bytes for each step, layer and expert. A host that does not hand the map in use over
is taken to have adopted the last one it was given. All ranks come to the same maps, as they make the same calls since the server
started or its deployment last changed; a rank that is started anew without such a change would not.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from eplb_gap.heuristics.control.catalogue import KINDS
from eplb_gap.heuristics.control.contiguous import contiguous_map
from eplb_gap.heuristics.control.controller import Controller, Session
from eplb_gap.heuristics.control.kinds import full_plan
from eplb_gap.heuristics.moves.relabel import moved, relabel
from eplb_gap.heuristics.plugins.guard import COMPLAINTS
from eplb_gap.problem.dead_ranks import with_dead, without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import check, legal_layers

LOG = logging.getLogger("eplb_gap")
SCALED_BITS = 32
"""Loads that are no integers, or huge, are scaled so that the largest of a window has so many bits: no sum overflows then."""
LARGEST = 1 << 40
"""Largest load of a step that is taken as it is."""


def warm_up(controller: Controller) -> None:
    """Run what a controller runs on a small model, before there is traffic that compiling would hold up."""
    loads = np.arange(1, 65).reshape(2, 2, 16) ** 2
    always = replace(controller, interval=1, window=None, lag=0)
    for deployment in (Deployment(16, 24, 8, num_nodes=2, num_groups=4), Deployment(16, 24, 8)):
        session, in_use = KINDS[controller.kind].start(always, deployment), contiguous_map(deployment, 2)
        for end in (1, 2):
            in_use = session.plan(loads[:end], in_use) or in_use


@dataclass
class Hosted:
    """A controller on one model of a server.

    Parameters
    ----------
    controller : Controller
    deployment : Deployment
    """

    controller: Controller
    deployment: Deployment
    session: Session = field(init=False)
    past: deque[np.ndarray] = field(default_factory=deque)
    steps: int = 0
    newest: Placement | None = None

    def __post_init__(self) -> None:
        self.session = KINDS[self.controller.kind].start(self.controller, self.deployment)

    def next_map(self, weight: np.ndarray, in_use: Placement | None, plain: Callable[[], Placement]) -> Placement:
        """Return the map that follows; see :func:`next_map`."""
        known, before = self.newest if in_use is None else in_use, self.steps
        if known is not None:
            known = with_dead(without_dead(known, self.deployment), self.deployment)
        try:
            found = self._next(weight if weight.ndim == 3 else weight[None], known)
        except Exception as error:  # whatever it is, the server must go on
            COMPLAINTS.say(f"controller {self.controller.label} failed, the map in use stays if it is legal", error)
            found = known if known is not None and legal_layers(known, self.deployment).all() else plain()
        if known is not None and self.steps > before and LOG.isEnabledFor(logging.INFO):
            self._report(found, known)
        self.newest = found
        return found

    def adopt(self, history: np.ndarray, placement: Placement) -> None:
        """Keep what a call brought that was answered otherwise."""
        self.steps += len(history)
        self._keep(history)
        self.newest = placement

    def _next(self, history: np.ndarray, known: Placement | None) -> Placement:
        deployment, controller, layers = self.deployment, self.controller, history.shape[1]
        before, self.steps = self.steps, self.steps + (len(history) if history.any() else 0)
        # vLLM asks for a map without loads while it measures its memory: no step of the controller.
        if not KINDS[controller.kind].plans or self.steps == before:
            serves = known is not None and legal_layers(known, deployment.as_global()).all()
            if known is None or serves:
                return contiguous_map(deployment, layers) if known is None else known
            return relabel(contiguous_map(deployment, layers), known, deployment)
        self._keep(history)
        if known is None or not legal_layers(known, deployment).all():
            near = contiguous_map(deployment, layers) if known is None else known
            known = full_plan(controller, self._past()[-controller.steps_needed :], near, deployment)
        if (
            self.steps < KINDS[controller.kind].needs(controller)
            or self.steps // controller.interval == before // controller.interval
        ):
            return known
        found = self.session.plan(self._past(), known)
        if found is None:
            return known
        check(found, deployment)
        return found

    def _keep(self, history: np.ndarray) -> None:
        """Add steps to the past, and let go of those that the controller will never look at again."""
        most = KINDS[self.controller.kind].reach(self.controller)
        self.past.extend(np.array(history[-most:]))  # a copy: the host may fill its own anew
        while len(self.past) > most:
            self.past.popleft()

    def _past(self) -> np.ndarray:
        steps = as_integers(np.stack(self.past))
        steps.flags.writeable = False
        return steps

    def _report(self, found: Placement, known: Placement) -> None:
        changed = (found.phy2log != known.phy2log).any(axis=1)
        LOG.info(
            "controller %s, step %d: %d of %d layers keep their map, %d of %d replicas move",
            self.controller.label,
            self.steps,
            np.count_nonzero(~changed),
            changed.size,
            moved(found, known, self.deployment).sum(),
            np.count_nonzero(found.ranks >= 0),
        )


MODELS: dict[tuple[int, int], Hosted] = {}
"""By layers and experts."""


def next_map(
    controller: Controller,
    weight: np.ndarray,
    deployment: Deployment,
    in_use: Placement | None,
    plain: Callable[[], Placement],
) -> Placement:
    """Return the map that a controller answers a call of the host with.

    Parameters
    ----------
    controller : Controller
    weight : ndarray [layers, experts] or [samples, layers, experts]
        Checked loads since the last call, int64 or float64; a history oldest sample first.
    deployment : Deployment
    in_use : Placement or None
        The map in use, of the same shape; None if the host doesn't say.
    plain : callable
        Plans without a controller: for where the controller fails and the map in use is not legal.
    """
    return _model(controller, deployment, weight).next_map(weight, in_use, plain)


def adopt(controller: Controller, weight: np.ndarray, deployment: Deployment, placement: Placement) -> None:
    """Take note of a map that a call of the host was answered with in place of the controller's, and of the call's loads."""
    _model(controller, deployment, weight).adopt(weight if weight.ndim == 3 else weight[None], placement)


def _model(controller: Controller, deployment: Deployment, weight: np.ndarray) -> Hosted:
    model = weight.shape[-2], weight.shape[-1]
    found = MODELS.get(model)
    if found is None or (found.controller, found.deployment) != (controller, deployment):
        before, found = found, Hosted(controller, deployment)
        # Where ranks died the others go on from their map; one that comes back is a new process, which knows none.
        if (
            before is not None
            and before.deployment.num_slots == deployment.num_slots
            and set(before.deployment.dead_gpus) <= set(deployment.dead_gpus)
        ):
            found.newest = before.newest
        MODELS[model] = found
    return found


def as_integers(steps: np.ndarray) -> np.ndarray:
    """Return loads as sessions take them, int64: integers as they are, others times one power of two.

    Sessions ask only for ratios of loads; a power of two keeps ties, and the maps of numbers that happen to be integral.
    """
    largest = steps.max()
    if steps.dtype == np.int64 and largest <= LARGEST:
        return steps
    scaled = np.ldexp(steps.astype(np.float64), SCALED_BITS - int(np.frexp(np.float64(largest))[1]))
    return np.asarray(np.rint(scaled).astype(np.int64))
