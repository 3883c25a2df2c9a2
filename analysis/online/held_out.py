"""What chosen controllers, no EPLB and a host's default serve on the steps that nothing was chosen on, with uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eplb_gap.analysis.online.bootstrap import Estimate, block_length, draw
from eplb_gap.analysis.online.host_defaults import HostDefault
from eplb_gap.analysis.online.trial import Price, Trials
from eplb_gap.analysis.replay.replay import Replayed
from eplb_gap.heuristics.control.catalogue import KINDS
from eplb_gap.heuristics.control.controller import Controller
from eplb_gap.heuristics.registry import rebalance
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import PlacementError
from eplb_gap.problem.loads import LoadTrace

Candidate = tuple[Controller, Deployment]


@dataclass(frozen=True)
class Judged:
    """A controller on the held-out steps.

    Parameters
    ----------
    run : Replayed
        From the first recorded step on, as in a server that has run before, judged on the held-out steps.
    slots : int
    balancedness : Estimate
        What it serves; net of costs where these are known.
    gain : Estimate
        By how much more than no EPLB.
    """

    run: Replayed
    slots: int
    balancedness: Estimate
    gain: Estimate


@dataclass(frozen=True)
class HeldOut:
    """All controllers that are reported.

    Parameters
    ----------
    judged : dict
        By controller and deployment.
    default : Controller
        The host's default as it was replayed.
    default_changed : list of str
        In which way it is not the host's own.
    over_default : Estimate
        By how much the chosen one serves more than the default.
    block : int
        Steps of a bootstrap block.
    short : bool
        Whether the blocks are shorter than they should be, because the held-out steps are few.
    """

    judged: dict[Candidate, Judged]
    default: Controller
    default_changed: list[str]
    over_default: Estimate
    block: int
    short: bool


def judge(
    steps: LoadTrace, border: int, chosen: Candidate, others: Sequence[Candidate], default: HostDefault, trials: Trials
) -> HeldOut:
    """Replay controllers over all steps and judge them from the border on; no EPLB and the default on the chosen deployment.

    Parameters
    ----------
    steps : LoadTrace
    border : int
    chosen : Candidate
    others : sequence of Candidate
    default : HostDefault
    trials : Trials
    """
    shape = chosen[1]
    none: Candidate = (Controller("none"), shape)
    planned = list(dict.fromkeys([none, chosen, *others]))
    trials.announce(len(planned) + 1)
    runs = {(controller, where): trials.run(steps, where, controller, border) for controller, where in planned}
    usual, changed = default.controller, default.changed
    rebalance(steps.loads[0], shape, usual.method)  # what it loads and compiles is no time of a decision
    try:
        runs[usual, shape] = trials.run(steps, shape, usual, border)
    except PlacementError as error:  # its planner knows no forbidden duplicates
        changed = [*changed, f"{usual.method} makes an illegal map here ({error}); fast stands for it"]
        usual = replace(usual, method="fast")
        runs[usual, shape] = trials.run(steps, shape, usual, border)
    mean = steps.loads[border:].sum(axis=(1, 2), dtype=np.float64) / shape.live.num_gpus
    served = np.array([_served(run, mean, border, trials.price) for run in runs.values()])
    index = {candidate: number for number, candidate in enumerate(runs)}
    without, by_default, ours = index[none], index[usual, shape], index[chosen]
    block, short = block_length(served[[without, by_default]] - served[ours], _longest((runs[usual, shape], runs[chosen])))
    draws = draw(mean, served, block)
    judged = {
        candidate: Judged(
            run,
            candidate[1].num_slots,
            draws.balancedness(index[candidate]),
            draws.difference(index[candidate], without),
        )
        for candidate, run in runs.items()
    }
    return HeldOut(judged, usual, changed, draws.difference(ours, by_default), block, short)


def _served(run: Replayed, mean: np.ndarray, border: int, price: Price | None) -> np.ndarray:
    """Return the largest GPU loads of every held-out step, summed over layers; with costs, the tokens of waiting too."""
    largest: np.ndarray = mean / run.by_step[border:]
    return largest if price is None else largest + price.tokens(run, mean)


def _longest(runs: Sequence[Replayed]) -> int:
    """Return the longest interval at which maps change within the held-out steps.

    One map for all of them changes nothing there: what is found then holds for this map.
    """
    intervals = [run.controller.interval for run in runs if KINDS[run.controller.kind].plans]
    return max((one for one in intervals if one < runs[0].last - runs[0].first), default=1)
