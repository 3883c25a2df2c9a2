"""Calibration: which configuration of the heuristics to run on given loads (``eplb-gap calibrate``).

The first two thirds of the windows are for training: every candidate plans each of them, its gap to a certified bound and its
time are measured, and the Pareto front of both is drawn. Only the front, the default and DeepSeek's own program are then
reported on the windows held out: planned there, and planned one window earlier and served there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap import solvers
from eplb_gap.analysis.candidates import DEEPSEEK, DEFAULT, Candidate, candidates
from eplb_gap.analysis.text import markdown
from eplb_gap.heuristics.config import FastConfig
from eplb_gap.heuristics.config_file import write
from eplb_gap.heuristics.environment import compile_first
from eplb_gap.heuristics.registry import configured
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError, require_kind
from eplb_gap.problem.loads import LoadTrace, as_loads
from eplb_gap.problem.metrics import balancedness_gpu, optimality_gap
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import verify

CERTIFIED_GAP = 1e-4
FEW_SLOTS = 4
"""Slots per GPU up to which closing the gap can take minutes: there the closed-form bounds are used."""
PLANNER_ROUNDS, PIPELINE_ROUNDS = 9, 3
SLOW_SECONDS = 0.02
"""Pipelines slower than this in the warm-up are timed once per window: they are far from any budget that the planner can meet."""
NOISE = 0.1
"""Relative difference of two times that says nothing."""


@dataclass(frozen=True)
class HeldOut:
    """What a candidate does on windows it was not chosen on: gaps of all layers there, balancedness when serving them."""

    gaps: list[float]
    serving: list[float]


@dataclass(frozen=True)
class Calibration:
    """Result of :func:`calibrate`.

    Parameters
    ----------
    candidates : list of Candidate
    front : list of Candidate
        Pareto front of time and gap on the training windows, fastest first.
    chosen : Candidate
    held_out : dict
        :class:`HeldOut` of the front, the default and DeepSeek's program, by name.
    training, testing : list of int
        Windows.
    method : str
        Solver of the bounds.
    bound_gap : float
        Largest gap of the solver's own map to its bound: no measured gap is overstated by more.
    budget_ms : float or None
    """

    candidates: list[Candidate]
    front: list[Candidate]
    chosen: Candidate
    held_out: dict[str, HeldOut]
    training: list[int]
    testing: list[int]
    method: str
    bound_gap: float
    budget_ms: float | None

    @property
    def default_on_front(self) -> bool:
        """Whether nothing beats the default in gap or in time without losing in the other."""
        return any(candidate.name == DEFAULT for candidate in self.front)


def training_and_held_out(windows: int) -> tuple[list[int], list[int]]:
    """Return the training windows, the first two thirds, and those held out; at least one of each.

    Raises
    ------
    InputError
        If there are fewer than two windows.
    """
    if windows < 2:
        raise InputError(f"the trace has {windows} window; at least 2 are needed, to choose on some and to report on others")
    border = windows * 2 // 3
    return list(range(border)), list(range(border, windows))


def calibrate(
    trace: LoadTrace | np.ndarray,
    deployment: Deployment,
    tried: list[Candidate] | None = None,
    budget_ms: float | None = None,
    seconds_per_window: float = 10.0,
    tick: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Calibration:
    """Measure configurations on the first two thirds of the windows and choose one; it is reported on the others.

    Parameters
    ----------
    trace : LoadTrace or array_like of int [windows, layers, experts]
        Oldest window first, two or more.
    deployment : Deployment
        Dead GPUs are left out; the live ones have equally many slots.
    tried : list of Candidate, optional
        Receives the measurements; one must be named :data:`DEFAULT` and one :data:`DEEPSEEK`. By default :func:`candidates`.
    budget_ms : float, optional
        CPU time that planning one window may take; by default what the default takes.
    seconds_per_window : float, default 10.0
        Time limit of the solver that certifies the bounds.
    tick : callable
        Called with what is done, the number of steps done and their total.

    Returns
    -------
    Calibration
        ``chosen.config`` is what :func:`eplb_gap.rebalance` takes as its ``config``.

    Raises
    ------
    InputError
        If there is one window only, the experts are not the deployment's, live GPUs have unequal slots, or no candidate is
        within the budget.

    Examples
    --------
    >>> from eplb_gap import Deployment, calibrate, rebalance
    >>> from eplb_gap.analysis.candidates import DEEPSEEK, DEFAULT, candidates
    >>> loads, deployment = [[[9, 5, 3, 1]], [[5, 9, 3, 1]], [[5, 3, 9, 1]]], Deployment(4, 6, 2)
    >>> few = [one for one in candidates() if one.name in (DEFAULT, DEEPSEEK)]  # without it all are tried, for minutes
    >>> found = calibrate(loads, deployment, few, budget_ms=1000)
    >>> found.training, found.testing
    ([0, 1], [2])
    >>> placement = rebalance(loads[-1], deployment, config=found.chosen.config)
    """
    require_kind("deployment", deployment, Deployment)
    loads = as_loads(trace.loads if isinstance(trace, LoadTrace) else trace, "loads", 3)
    if loads.shape[2] != deployment.num_experts:
        raise InputError(f"loads has {loads.shape[2]} experts; the deployment has {deployment.num_experts}")
    live = deployment.live
    live.require_regular("a calibration")
    tried = candidates() if tried is None else tried
    training, testing = training_and_held_out(len(loads))
    total = len(loads) + len(tried) + len(training)
    method = "bounds" if live.slots_per_gpu <= FEW_SLOTS else "auto"
    lower, bound_gap = [], 0.0
    for window, of_window in enumerate(loads):
        tick(f"certified bound of window {window}", window, total)
        solution = solvers.solve(of_window, live, method, CERTIFIED_GAP, seconds_per_window)
        lower.append(solution.lower)
        bound_gap = max(bound_gap, *solution.gap)
    _measure(loads, live, tried, training, lower, lambda what, done: tick(what, len(loads) + done, total))
    default = next(candidate for candidate in tried if candidate.name == DEFAULT)
    held_out: dict[str, HeldOut] = {}
    while True:  # what turns out to be illegal on a window held out cannot be chosen: without it the front is another
        legal = [candidate for candidate in tried if candidate.status == "legal"]
        front = pareto_front(legal)
        chosen = choose(legal, front, default, budget_ms)
        reported = {c.name: c for c in [*front, default, chosen, *(c for c in legal if c.name == DEEPSEEK)]}
        for name, candidate in reported.items():
            if name not in held_out:
                try:
                    held_out[name] = _held_out(loads, live, candidate, testing, lower)
                except PlacementError as error:
                    candidate.status = f"illegal: {error}"
        if all(candidate.status == "legal" for candidate in reported.values()):
            kept = {name: held_out[name] for name in reported}
            return Calibration(tried, front, chosen, kept, training, testing, method, bound_gap, budget_ms)


def _measure(
    loads: np.ndarray,
    deployment: Deployment,
    tried: list[Candidate],
    training: list[int],
    lower: list[list[Fraction]],
    tick: Callable[[str, int], None],
) -> None:
    """Fill in gaps and times: a warm-up that also finds the slow and the illegal, then the candidates in turn on every window."""
    import torch

    compile_first()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # Candidates of about one speed take turns among themselves: after a slow program the caches are cold.
        planner: list[Candidate] = []
        quick: list[Candidate] = []
        slow: list[Candidate] = []
        for number, candidate in enumerate(tried):
            tick(f"warm-up of {candidate.name}", number)
            try:
                verify(configured(candidate.config)(loads[0], deployment), loads[0], deployment)
            except PlacementError as error:
                candidate.status = f"illegal: {error}"
                continue
            if isinstance(candidate.config, FastConfig):
                planner.append(candidate)
            else:
                (slow if _timed(candidate, loads[0], deployment)[0] > SLOW_SECONDS else quick).append(candidate)
        for number, window in enumerate(training):
            tick(f"training window {window}", len(tried) + number)
            for group, rounds in ((planner, PLANNER_ROUNDS), (quick, PIPELINE_ROUNDS), (slow, 1)):
                turns = [[_timed(candidate, loads[window], deployment) for candidate in group] for _ in range(rounds)]
                for candidate, timed in zip(list(group), zip(*turns, strict=True), strict=True):
                    try:
                        candidate.gaps += _gaps(timed[-1][1], loads[window], deployment, lower[window])
                    except PlacementError as error:  # legal on the windows before
                        candidate.status = f"illegal: {error}"
                        group.remove(candidate)
                        continue
                    candidate.milliseconds.append(1000 * statistics.median(seconds for seconds, _ in timed))
    finally:
        torch.set_num_threads(threads)


def _timed(candidate: Candidate, loads: np.ndarray, deployment: Deployment) -> tuple[float, Placement]:
    """Plan once; return the CPU seconds of the calling thread (a progress bar's or a busy machine's do not count) and the map."""
    plan = configured(candidate.config)
    start = time.thread_time()
    placement = plan(loads, deployment)
    return time.thread_time() - start, placement


def _gaps(placement: Placement, loads: np.ndarray, deployment: Deployment, lower: list[Fraction]) -> list[float]:
    return [optimality_gap(upper, low) for upper, low in zip(verify(placement, loads, deployment), lower, strict=True)]


def _held_out(
    loads: np.ndarray, deployment: Deployment, candidate: Candidate, testing: list[int], lower: list[list[Fraction]]
) -> HeldOut:
    plan = configured(candidate.config)
    before = plan(loads[testing[0] - 1], deployment)
    gaps: list[float] = []
    serving = []
    for window in testing:
        serving.append(balancedness_gpu(before, loads[window], deployment.num_gpus))
        before = plan(loads[window], deployment)
        gaps += _gaps(before, loads[window], deployment, lower[window])
    return HeldOut(gaps, serving)


def pareto_front(measured: list[Candidate]) -> list[Candidate]:
    """Return the candidates that no other dominates, fastest first.

    Of candidates with equal gaps the fastest stands for all; where others are within :data:`NOISE` of it, the default does, or
    else the first listed. It is dominated by one of smaller gap that is not slower by more than :data:`NOISE`.
    """
    by_gap: dict[float, list[Candidate]] = {}
    for candidate in measured:
        by_gap.setdefault(candidate.gap, []).append(candidate)
    kept = []
    for equals in by_gap.values():
        limit = min(candidate.time for candidate in equals) * (1 + NOISE)
        kept.append(min((c for c in equals if c.time <= limit), key=lambda c: c.name != DEFAULT))
    front = [c for c in kept if not any(other.gap < c.gap and other.time <= c.time * (1 + NOISE) for other in kept)]
    return sorted(front, key=lambda c: c.time)


def choose(measured: list[Candidate], front: list[Candidate], default: Candidate, budget_ms: float | None) -> Candidate:
    """Return the default where it is on the front and no budget is given, otherwise the smallest training gap within the budget.

    Without a budget the default's own time is one, up to :data:`NOISE`. Of equal gaps, one on the front is taken.

    Raises
    ------
    InputError
        If no candidate is fast enough.
    """
    if budget_ms is None and default in front:
        return default
    budget = default.time * (1 + NOISE) if budget_ms is None else budget_ms
    within = [candidate for candidate in measured if candidate.time <= budget]
    if not within:
        fastest = min(measured, key=lambda c: c.time)
        raise InputError(
            f"budget_ms is {budget:g}; the fastest configuration, {fastest.name}, takes {fastest.time:.3g} ms on these loads"
        )
    return min(within, key=lambda c: (c.gap, c not in front, c.time))


def summary(result: Calibration) -> dict[str, Any]:
    """Return the result as plain data, for ``--json``."""
    front = {candidate.name for candidate in result.front}
    rows = []
    for candidate in result.candidates:
        row: dict[str, Any] = {"name": candidate.name, "status": candidate.status}
        if candidate.status == "legal":
            row |= {"training_gap": candidate.gap, "training_worst_gap": max(candidate.gaps), "milliseconds": candidate.time}
            row["front"] = candidate.name in front
        if candidate.name in result.held_out:
            held = result.held_out[candidate.name]
            row |= {"held_out_gap": statistics.fmean(held.gaps), "held_out_worst_gap": max(held.gaps), "serving": held.serving}
        rows.append(row)
    return {
        "chosen": result.chosen.name,
        "default_on_front": result.default_on_front,
        "training_windows": result.training,
        "held_out_windows": result.testing,
        "bounds": result.method,
        "bound_gap": result.bound_gap,
        "budget_ms": result.budget_ms,
        "candidates": rows,
    }


def report(result: Calibration) -> str:
    """Return the result as text: the table of the front and its references, and what to run."""
    body = []
    by_name = {candidate.name: candidate for candidate in result.candidates}
    front = {candidate.name for candidate in result.front}
    for name in sorted(result.held_out, key=lambda name: by_name[name].time):
        candidate, held = by_name[name], result.held_out[name]
        marks = [
            word
            for word, holds in (("front", name in front), ("default", name == DEFAULT), ("chosen", candidate is result.chosen))
            if holds
        ]
        body.append(
            [
                name,
                f"{candidate.time:.3g}",
                f"{100 * candidate.gap:.4f} / {100 * max(candidate.gaps):.4f}",
                f"{100 * statistics.fmean(held.gaps):.4f} / {100 * max(held.gaps):.4f}",
                f"{statistics.fmean(held.serving):.4f}",
                ", ".join(marks),
            ]
        )
    header = ["configuration", "CPU ms", "training gap, %", "held-out gap, %", "held-out serving", ""]
    legal = sum(candidate.status == "legal" for candidate in result.candidates)
    lines = [
        f"{len(result.candidates)} configurations, {legal} with legal maps; chosen on windows {span(result.training)}, "
        f"reported on windows {span(result.testing)}.",
        "Gaps: mean / worst layer, to the bound that solver "
        f"{result.method} certified; they are overstated by at most {100 * result.bound_gap:.4f} %.",
        "Serving: GPU balancedness on a held-out window, planned on the window before. Time: CPU per window.",
        "",
        markdown(header, body),
        "",
        verdict(result),
    ]
    return "\n".join(lines)


def verdict(result: Calibration) -> str:
    """Say which configuration to run, and plainly so where it is the default."""
    chosen, default = result.chosen, next(candidate for candidate in result.candidates if candidate.name == DEFAULT)
    if result.default_on_front:
        where = "The default is already on the front: nothing beats it in gap or time without losing in the other."
    else:
        where = "The default is not on the front."
    if chosen is default:
        return f"{where} Keep it."
    held, before = result.held_out[chosen.name], result.held_out[DEFAULT]
    change = 100 * (statistics.fmean(held.serving) - statistics.fmean(before.serving))
    budget = "the default's own time" if result.budget_ms is None else f"{result.budget_ms:g} ms"
    return (
        f"{where} Within {budget}, {chosen.name} has the smallest training gap: {100 * chosen.gap:.4f} % in "
        f"{chosen.time:.3g} ms, the default {100 * default.gap:.4f} % in {default.time:.3g} ms. On the held-out windows: "
        f"{100 * statistics.fmean(held.gaps):.4f} % against {100 * statistics.fmean(before.gaps):.4f} %, and "
        f"{change:+.2f} points of serving balancedness."
    )


def save(result: Calibration, folder: Path, loads_name: str, deployment_name: str) -> Path:
    """Write the chosen configuration to ``config.toml`` in a folder and return its path."""
    chosen = result.chosen
    path = folder / "config.toml"
    comment = (
        f"{chosen.name}, chosen by eplb-gap calibrate for {deployment_name} on {loads_name}\n"
        f"training gap {100 * chosen.gap:.4f} % on windows {span(result.training)}, {chosen.time:.3g} ms of CPU per window"
    )
    write(path, chosen.config, comment)
    return path


def span(windows: list[int]) -> str:
    """Return consecutive windows in words."""
    return str(windows[0]) if len(windows) == 1 else f"{windows[0]} to {windows[-1]}"
