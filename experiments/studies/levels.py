"""Levels that the exact engines are held to: instances, limits, and what was measured (``eplb-gap bench solvers``)."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from eplb_gap import solvers
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.synthetic import family_loads, scaled
from eplb_gap.experiments.loads.traces import POLICIES, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, NUMBERS, Shape, solver
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows
from eplb_gap.experiments.measuring.solve_cells import solver_cell
from eplb_gap.experiments.studies.numbers import Number
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.deployment import Deployment

SUITE = "levels"
SEEDS = (0, 1)
ROUNDS = 5
WARM_SECONDS = 0.5


@dataclass(frozen=True)
class Level:
    """Instances of one kind and what is asked of a solve of each.

    Parameters
    ----------
    experts, slots, gpus : int
    families : tuple of str
        Names that :func:`eplb_gap.experiments.loads.synthetic.family_loads` knows.
    total : int
        Tokens of the instance.
    gap : float
        Optimality gap to certify; 0 asks for equal fractions.
    seconds : float
        Time limit of a solve.
    least : float
        Share of the solves that must reach the gap.
    others : float, optional
        Gap that the rest must reach.
    median : float, optional
        Median of the seconds of all solves.
    equality : float
        Share of the solves that must end with equal fractions.
    """

    experts: int
    slots: int
    gpus: int
    families: tuple[str, ...]
    total: int
    gap: float
    seconds: float
    least: float = 1.0
    others: float | None = None
    median: float | None = None
    equality: float = 0.0

    def instance(self, family: str) -> str:
        """Return the name of the level's instances with these loads: shape and family."""
        return f"{self.experts}/{self.slots}/{self.gpus} {family}"

    def verdict(self, measured: Rows) -> tuple[str, bool]:
        """Return what was measured in words, and whether the level is met."""
        gaps = [row["gap"][0] for row in measured]
        seconds = [row["wall_seconds"] for row in measured]
        reached = [gap <= self.gap for gap in gaps]
        equal = sum(gap == 0 for gap in gaps)
        met = sum(reached) >= self.least * len(gaps) and equal >= self.equality * len(gaps)
        met &= self.others is None or max(gaps) <= self.others
        met &= self.median is None or statistics.median(seconds) <= self.median
        met &= max(seconds) <= 1.1 * self.seconds + 1
        text = f"{sum(reached)}/{len(gaps)} reach it, {equal} equal; worst gap {100 * max(gaps):.4f} %"
        return f"{text}; median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s", met

    def asked(self) -> str:
        """Return the level in words."""
        share = "all" if self.least == 1 else f"{100 * self.least:.0f} %"
        parts = [f"{share} within {100 * self.gap:g} %" if self.gap else f"{share} optimal", f"{self.seconds:g} s"]
        parts += [f"the rest within {100 * self.others:g} %"] if self.others else []
        parts += [f"median {self.median:g} s"] if self.median else []
        parts += [f"{100 * self.equality:.0f} % with equal fractions"] if self.equality else []
        return ", ".join(parts)


MILD = ("ln.6", "ln1.0", "ln1.2", "zipf.8")
LEVELS = (
    Level(256, 288, 144, MILD, 10**6, 1e-6, 20, median=0.5, equality=0.5),
    Level(256, 288, 144, ("ln.3",), 10**6, 1e-6, 20, least=0.5, others=6e-4),
    Level(256, 320, 160, ("ln.3", "ln.6", "ln1.0"), 10**6, 2.5e-3, 20),
    Level(64, 96, 48, MILD, 10**6, 1e-6, 20, least=0.9),
    Level(128, 160, 80, MILD, 10**6, 1e-6, 20, least=0.9),
    Level(64, 96, 32, ("ln.3", "ln.6", "ln1.0"), 10**6, 1.5e-3, 10),
    Level(128, 192, 64, ("ln.3", "ln.6", "ln1.0"), 10**6, 1.5e-3, 10),
    Level(256, 384, 128, ("ln.3", "ln.6", "ln1.0"), 10**6, 1.5e-3, 10),
    Level(64, 128, 32, ("ln.3", "ln.6", "ln1.0"), 10**6, 1.2e-4, 10),
    Level(256, 320, 80, ("ln.3", "ln.6", "ln1.0"), 10**6, 1.2e-4, 10),
    Level(64, 72, 24, ("zipf.8", "ln1.2"), 10**6, 2e-3, 10),
    Level(256, 288, 96, ("zipf.8",), 10**6, 5e-3, 20),
    Level(12, 16, 4, MILD, 10**5, 0.0, 2, median=0.3),
    Level(16, 24, 8, MILD, 10**5, 0.0, 2, median=0.3),
    Level(24, 32, 8, MILD, 10**5, 0.0, 2, median=0.3),
    Level(32, 48, 16, ("ln.6", "ln1.0", "zipf.8"), 10**5, 0.0, 100),
    Level(384, 448, 64, ("ln.7",), 10**6, 1e-4, 0.1),
    Level(512, 640, 128, ("ln.7",), 10**6, 2e-4, 10),
)
FLAGSHIP_LEVELS = (
    ("hierarchical", 10**6, 1e-4, 0.05),
    ("hierarchical", 10**6, 1e-5, 0.5),
    ("hierarchical", 10**8, 1e-6, 3.0),
    ("global", 10**6, 1e-4, 0.1),
    ("global", 10**6, 1e-5, 1.0),
)
"""Policy, tokens per layer, gap to certify on all 58 layers, seconds for the whole call."""


def flagship_instance(policy: str, total: int, gap: float) -> str:
    """Return the name of the flagship's layers with so many tokens and the gap that is asked of them."""
    return f"flagship {policy} {total:g} {gap:g}"


def instance(
    number: int | None = None, family: str = "", seed: int = 0, policy: str = "", total: int = 0, **_: object
) -> Instance:
    """Return an instance of a level, or the calibrated trace's first window, scaled."""
    if number is None:
        return scaled(trace("calibrated").window(0), total), POLICIES[policy]
    level = LEVELS[number]
    loads = family_loads(family, level.experts, level.total, seed)[None]
    return loads, Deployment(level.experts, level.slots, level.gpus)


def level_cell(number: int, family: str, seed: int) -> Fields:
    """Solve one instance of a level, after a short solve of another that compiles what is needed."""
    level = LEVELS[number]
    loads, deployment = instance(number, family, seed)
    other = family_loads(family, level.experts, level.total, seed + 1000)
    solvers.solve(other[None], deployment, "auto", level.gap, WARM_SECONDS)
    return solver_cell(loads, deployment, "auto", level.gap, level.seconds)


def flagship_cell(policy: str, total: int, gap: float, limit: float) -> Fields:
    """Time whole solve calls on the 58 layers of the calibrated trace's first window, scaled; warm, several rounds."""
    loads, deployment = instance(policy=policy, total=total)
    solvers.solve(loads[:2], deployment, "auto", gap, WARM_SECONDS)
    solved = [solvers.solve(loads, deployment, "auto", gap, 10 * limit) for _ in range(ROUNDS)]
    return {
        "kind": "level",
        "hash": rows.instance_hash(loads, deployment),
        "deployment": deployment.as_dict(),
        "parameters": {"target_gap": gap, "time_limit": 10 * limit, "workers": 1},
        "status": solved[0].status,
        "gap": solved[0].gap,
        "seconds": [solution.seconds for solution in solved],
    }


def cells() -> list[Cell]:
    """Return the cells of all levels."""
    flagship = [
        Cell(
            SUITE,
            flagship_instance(policy, total, gap),
            "auto",
            flagship_cell,
            {"policy": policy, "total": total, "gap": gap, "limit": limit},
        )
        for policy, total, gap, limit in FLAGSHIP_LEVELS
    ]
    others = [
        Cell(
            SUITE,
            level.instance(family),
            "auto",
            level_cell,
            {"number": n, "family": family, "seed": seed},
            seed,
        )
        for n, level in enumerate(LEVELS)
        for family in level.families
        for seed in SEEDS
    ]
    return flagship + others


def table(measured: Rows) -> str:
    """Return asked and measured levels side by side."""
    levelled = measured.where(suite=SUITE)
    body = []
    for policy, total, gap, limit in FLAGSHIP_LEVELS:
        row = levelled.one(instance=flagship_instance(policy, total, gap))
        reached, median = sum(g <= gap for g in row["gap"]), statistics.median(row["seconds"])
        text = f"{reached}/{len(row['gap'])} layers, worst gap {100 * max(row['gap']):.5f} %; median {median:.3f} s of {ROUNDS}"
        met = reached == len(row["gap"]) and median <= limit
        body.append(
            [
                f"flagship {policy}, {total:g} tokens a layer",
                f"58 layers within {100 * gap:g} %, {limit:g} s",
                text,
                "yes" if met else "no",
            ]
        )
    for level in LEVELS:
        names = {level.instance(family) for family in level.families}
        text, met = level.verdict(Rows(r for r in levelled if r["instance"] in names))
        body.append([level.instance(", ".join(level.families)), level.asked(), text, "yes" if met else "no"])
    return (
        "## Levels of the exact engines\n\n"
        + markdown(["instances (experts/slots/GPUs)", "asked", "measured", "met"], body)
        + "\n"
    )


def _milliseconds(instance: str) -> Number:
    return Number(((SUITE, instance, "auto"),), lambda rows: f"{1000 * statistics.median(rows[0]['seconds']):.0f}")


STUDY = Study(
    SUITE,
    job="solvers",
    about="the exact engines on the instances of their levels",
    cells=cells,
    shapes=(
        solver(),
        Shape(
            "level",
            CELL | {"deployment": "object of anything", "gap": NUMBERS, "seconds": NUMBERS},
            searched=frozenset({"gap", "status"}),
        ),
    ),
    instance=instance,
    table=table,
    numbers={
        "ms-certify-hierarchical": _milliseconds(flagship_instance("hierarchical", 10**6, 1e-4)),
        "ms-certify-global": _milliseconds(flagship_instance("global", 10**6, 1e-4)),
        "ms-certify-fine": _milliseconds(flagship_instance("hierarchical", 10**8, 1e-6)),
    },
    timed=True,
)
