"""What a calibration tries: configurations of the planner and of the pipeline, and what was measured of each."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from eplb_gap.heuristics.config import Config, FastConfig, PipelineConfig, Stage

DEFAULT, DEEPSEEK = "fast", "DeepSeek EPLB"
FAST_GRID: tuple[tuple[Any, tuple[float | None, ...]], ...] = (
    ("lpt", (None,)),
    ("fast", (5e-3, None, 1e-3)),
    ("split", (1e-3, 1e-4, None)),
    ("counts", (1e-3, None)),
)
"""Efforts and tolerances; the theta grid over replica counts is short in "fast" and long in "counts"."""
PACKERS: tuple[tuple[str, Stage], ...] = (
    ("LPT", Stage("heap_lpt")),
    ("round LPT", Stage("round_lpt")),
    ("snake", Stage("snake")),
    ("spread LPT", Stage("spread_lpt")),
    ("epsilon .001", Stage("epsilon_lpt", epsilon=1e-3)),
    ("epsilon .01", Stage("epsilon_lpt", epsilon=1e-2)),
    ("penalty .001", Stage("penalty_lpt", penalty=1e-3)),
    ("penalty .01", Stage("penalty_lpt", penalty=1e-2)),
)
SWAPS: tuple[tuple[str, str | None, int, int], ...] = (
    ("no swap", None, 0, 2),
    ("1 best swap", "nearest", 1, 2),
    ("8 best swaps", "nearest", 8, 2),
    ("8 swaps of 2 x 2", "candidates", 8, 2),
    ("8 swaps of 3 x 3", "candidates", 8, 3),
)
REPLICATIONS = (
    ("Hamilton", "hamilton", 0),
    ("Hamilton + fix-up", "hamilton", 8),
    ("threshold", "threshold", 0),
    ("hybrid on copies", "hybrid_on_copies", 0),
    ("hybrid on extras", "hybrid_on_extras", 0),
)


@dataclass(eq=False)
class Candidate:
    """One configuration and what was measured of it.

    Parameters
    ----------
    name : str
    config : Config
    gaps : list of float
        Gap to the certified bound of every layer of every training window.
    milliseconds : list of float
        Median CPU time of every training window.
    status : str
        "legal", or why its maps cannot be used.
    """

    name: str
    config: Config
    gaps: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    status: str = "legal"

    @property
    def gap(self) -> float:
        """Mean gap on the training windows."""
        return statistics.fmean(self.gaps)

    @property
    def time(self) -> float:
        """Mean over the training windows of the median CPU time, in ms."""
        return statistics.fmean(self.milliseconds)


def candidates() -> list[Candidate]:
    """Return what is tried: efforts times tolerances of the planner, and pipelines.

    The pipelines are all packers times all swaps with Adams' counts, and all other replications with LPT, without swaps and with
    eight; groups are packed by LPT with one best swap at most, since with two groups per node that is optimal already.
    """
    found = [
        Candidate(effort if tolerance is None else f"{effort} {tolerance:g}", FastConfig(effort, tolerance))
        for effort, tolerances in FAST_GRID
        for tolerance in tolerances
    ]
    found.append(Candidate(DEEPSEEK, PipelineConfig()))
    for (packer, stage), swap in product(PACKERS, SWAPS):
        found.append(Candidate(f"{packer}, {swap[0]}", _pipeline("adams_top_k", 0, stage, swap)))
    for (replication, rule, fix_ups), swap in product(REPLICATIONS, (SWAPS[0], SWAPS[2])):
        found.append(Candidate(f"{replication}, LPT, {swap[0]}", _pipeline(rule, fix_ups, PACKERS[0][1], swap)))
    return found


def _pipeline(replication: str, fix_ups: int, stage: Stage, swap: tuple[str, str | None, int, int]) -> PipelineConfig:
    _, rule, steps, tried = swap
    groups = Stage("heap_lpt", None if rule is None else "nearest", min(steps, 1))
    replicas = replace(stage, swap_rule=rule, swap_steps=steps, candidates=tried)
    return PipelineConfig(groups, replication, replicas, fix_ups=fix_ups)
