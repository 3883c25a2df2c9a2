"""Levels that the exact engines are held to: instances, limits, and what was measured (``eplb-gap bench solvers``)."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from eplb_gap import solvers
from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.loads.synthetic import family_loads, scaled
from eplb_gap.experiments.loads.traces import POLICIES, name_of, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, NUMBERS, Shape, solver
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows
from eplb_gap.experiments.measuring.solve_cells import solver_cell
from eplb_gap.experiments.studies.numbers import Number
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.proofs import described_trust

SUITE = "levels"
TUNED, HELD_OUT = (0, 1, 2, 3), (400, 401, 402, 403)
"""Seeds of every cell, as many of the one as of the other: engines were tuned on the first; the second were drawn afterwards."""
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
        Time limit of a solve, wall time.
    each : int
        Tuned seeds per family, and as many held-out ones.
    least : Fraction
        Share of the solves that must reach the gap.
    others : float, optional
        Gap that the rest must reach.
    median, worst : float, optional
        Median and largest of the CPU seconds of all solves.
    equality : float
        Share of the solves that must end with equal fractions.
    claims : bool
        Whether a bound may rest on a claim.
    nodes, groups : int
        More than one of both make the deployment hierarchical.
    """

    experts: int
    slots: int
    gpus: int
    families: tuple[str, ...]
    total: int
    gap: float
    seconds: float
    each: int = 1
    least: Fraction = Fraction(1)
    others: float | None = None
    median: float | None = None
    worst: float | None = None
    equality: float = 0.0
    claims: bool = True
    nodes: int = 1
    groups: int = 1

    @property
    def deployment(self) -> Deployment:
        """Deployment of its instances."""
        return Deployment(self.experts, self.slots, self.gpus, self.nodes, self.groups)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Its tuned seeds, then its held-out ones."""
        return TUNED[: self.each] + HELD_OUT[: self.each]

    def instance(self, family: str) -> str:
        """Return the name of the level's instances with these loads: shape and family."""
        return f"{name_of(self.deployment)} {family}"

    def rows(self, measured: Rows, seeds: Iterable[int]) -> Rows:
        """Return the level's rows of some seeds.

        Raises
        ------
        LookupError
            If one is missing.
        """
        found, wanted = measured.where(suite=SUITE), tuple(seeds)
        return Rows(found.one(instance=self.instance(family), seed=seed) for family in self.families for seed in wanted)

    def met(self, measured: Rows) -> bool:
        """Return whether the rows of all its seeds together, and those of the held-out ones alone, are what is asked."""
        everything, held_out = self.rows(measured, self.seeds), self.rows(measured, HELD_OUT[: self.each])
        # A half of the solves may miss what is no whole number of its own: all together decide.
        may_miss = math.floor(len(everything) * (1 - self.least)), math.ceil(len(held_out) * (1 - self.least))
        return all(self._holds(rows, most) for rows, most in zip((everything, held_out), may_miss, strict=True))

    def _holds(self, rows: Rows, may_miss: int) -> bool:
        gaps, cpu = [row["gap"][0] for row in rows], [row["cpu_seconds"] for row in rows]
        holds = sum(gap > self.gap for gap in gaps) <= may_miss
        holds &= sum(gap == 0 for gap in gaps) >= self.equality * len(gaps)
        holds &= self.others is None or max(gaps) <= self.others
        holds &= self.median is None or statistics.median(cpu) <= self.median
        holds &= self.worst is None or max(cpu) <= self.worst
        holds &= self.claims or not any(map(on_claim, rows))
        return bool(holds and max(row["wall_seconds"] for row in rows) <= 1.1 * self.seconds + 1)

    def found(self, measured: Rows, seeds: Sequence[int]) -> str:
        """Return what was measured on some seeds in words."""
        rows = self.rows(measured, seeds)
        gaps, cpu = [row["gap"][0] for row in rows], [row["cpu_seconds"] for row in rows]
        parts = [f"{sum(gap <= self.gap for gap in gaps)}/{len(gaps)} reach it"]
        parts += [f"{sum(gap == 0 for gap in gaps)} equal"] if self.gap else []
        parts += [f"{sum(map(on_claim, rows))} on a claim", f"worst gap {100 * max(gaps):.4f} %"]
        return f"{', '.join(parts)}; CPU median {statistics.median(cpu):.2f} s, worst {max(cpu):.2f} s"

    def asked(self) -> str:
        """Return the level in words."""
        share = "all" if self.least == 1 else f"{self.least}"
        parts = [f"{share} within {100 * self.gap:g} %" if self.gap else f"{share} optimal", f"{self.seconds:g} s"]
        parts += [f"the rest within {100 * self.others:g} %"] if self.others else []
        parts += [f"CPU median {self.median:g} s"] if self.median else []
        parts += [f"CPU worst {self.worst:g} s"] if self.worst else []
        parts += [f"{100 * self.equality:.0f} % with equal fractions"] if self.equality else []
        parts += [] if self.claims else ["no claims"]
        return ", ".join(parts)


def on_claim(row: Row) -> bool:
    """Return whether a bound of a row rests on anything but what the kernel recomputes."""
    return any(described_trust(proof) != "recomputed" for proof in row["proof"])


MILD, BROAD, HOT = ("ln.6", "ln1.0", "ln1.2", "zipf.8"), ("ln.3", "ln.6", "ln1.0"), ("ln2.3", "zipf1.2", "zipf1.4", "zipf1.6")
LEVELS = (
    Level(256, 288, 144, MILD, 10**6, 1e-6, 20, median=0.5, equality=0.5),
    Level(256, 288, 144, ("ln.3",), 10**6, 0.0, 20, each=4, least=Fraction(7, 8), others=1e-4, claims=False),
    Level(256, 320, 160, ("ln.3",), 10**6, 5e-4, 20, each=2),
    Level(256, 320, 160, ("ln.6",), 10**6, 0.0, 20, each=2),
    Level(256, 320, 160, ("ln1.0",), 10**6, 2.5e-3, 20),
    Level(64, 96, 48, MILD, 10**6, 1e-6, 20, least=Fraction(9, 10)),
    Level(128, 160, 80, MILD, 10**6, 1e-6, 20, least=Fraction(9, 10)),
    Level(64, 96, 32, ("ln.3",), 10**6, 1.5e-3, 10),
    Level(64, 96, 32, ("ln.6", "ln1.0"), 10**6, 3e-4, 10, each=2),
    Level(64, 96, 32, HOT, 10**6, 1e-3, 10, each=2),
    Level(128, 192, 64, ("ln.3",), 10**6, 1.5e-3, 10),
    Level(128, 192, 64, ("ln.6", "ln1.0"), 10**6, 3e-4, 10, each=2),
    Level(128, 192, 64, HOT, 10**6, 1e-3, 10, each=2),
    Level(256, 384, 128, BROAD, 10**6, 1.5e-3, 10),
    Level(64, 128, 32, BROAD, 10**6, 1.2e-4, 10),
    Level(256, 320, 80, BROAD, 10**6, 1.2e-4, 10),
    Level(64, 72, 24, ("zipf.8", "ln1.2"), 10**6, 2e-3, 10),
    Level(256, 288, 96, ("zipf.8",), 10**6, 1e-3, 20, each=2),
    Level(256, 288, 32, ("zipf1.2", "zipf1.2@.26"), 10**6, 2e-3, 10, each=4, nodes=4, groups=8),
    Level(12, 16, 4, MILD, 10**5, 0.0, 2, median=0.3),
    Level(16, 24, 8, MILD, 10**5, 0.0, 2, median=0.3),
    Level(24, 32, 8, ("ln1.0", "zipf.8", "ln.6"), 10**5, 0.0, 2, each=3, median=0.1, worst=1.0, claims=False),
    Level(24, 32, 8, ("ln1.2",), 10**5, 0.0, 2, median=0.3),
    Level(32, 48, 16, ("ln.6", "zipf.8"), 10**5, 0.0, 30, each=2, median=5.0),
    Level(32, 48, 16, ("ln1.0",), 10**5, 0.0, 100),
    Level(384, 448, 64, ("ln.7",), 10**6, 1e-4, 0.1),
    Level(512, 640, 128, ("ln.7",), 10**6, 2e-4, 10),
)
"""Of 256 experts with loads by Zipf's law with exponent 1.2 the hottest has 24 to 27 % of the tokens, in "@.26" exactly 26 %."""
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
    return family_loads(family, level.experts, level.total, seed)[None], level.deployment


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
    solved, cpu = [], []
    for _ in range(ROUNDS):
        started = time.process_time()
        solved.append(solvers.solve(loads, deployment, "auto", gap, 10 * limit))
        cpu.append(time.process_time() - started)
    return {
        "kind": "level",
        "hash": rows.instance_hash(loads, deployment),
        "deployment": deployment.as_dict(),
        "parameters": {"target_gap": gap, "time_limit": 10 * limit, "workers": 1},
        "status": solved[0].status,
        "gap": solved[0].gap,
        "proof": solved[0].proof,
        "seconds": [solution.seconds for solution in solved],
        "cpu_seconds": cpu,
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
        for seed in level.seeds
    ]
    return flagship + others


def table(measured: Rows) -> str:
    """Return asked and measured levels side by side: the flagship's, then those of single layers, their two halves apart."""
    levelled = measured.where(suite=SUITE)
    flagship = []
    for policy, total, gap, limit in FLAGSHIP_LEVELS:
        row = levelled.one(instance=flagship_instance(policy, total, gap))
        reached, median = sum(g <= gap for g in row["gap"]), statistics.median(row["seconds"])
        claims = sum(described_trust(proof) != "recomputed" for proof in row["proof"])
        text = f"{reached}/{len(row['gap'])} layers, {claims} on a claim, worst gap {100 * max(row['gap']):.5f} %; "
        flagship.append(
            [
                f"flagship {policy}, {total:g} tokens a layer",
                f"58 layers within {100 * gap:g} %, {limit:g} s",
                f"{text}median {median:.3f} s of {ROUNDS}",
                yes_or_no(reached == len(row["gap"]) and median <= limit),
            ]
        )
    body = [
        [
            level.instance(", ".join(level.families)),
            level.asked(),
            *(level.found(levelled, half[: level.each]) for half in (TUNED, HELD_OUT)),
            yes_or_no(level.met(levelled)),
        ]
        for level in LEVELS
    ]
    return (
        "## Levels of the exact engines\n\n"
        + markdown(["instances (experts/slots/GPUs)", "asked", "measured", "met"], flagship)
        + f"\n\nEngines were tuned on seeds {_range(TUNED)}; seeds {_range(HELD_OUT)} were drawn afterwards. A line has the "
        "first one to four of either for every family. A level is met where the held-out seeds alone and all seeds together meet "
        "it; where it allows no claims, a bound that the kernel does not recompute fails it.\n\n"
        + markdown(["instances (experts/slots/GPUs)", "asked", "tuned seeds", "held-out seeds", "met"], body)
        + "\n"
    )


def _range(seeds: Sequence[int]) -> str:
    return f"{seeds[0]} to {seeds[-1]}"


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
            CELL
            | {
                "deployment": "object of anything",
                "gap": NUMBERS,
                "proof": "list of text",
                "seconds": NUMBERS,
                "cpu_seconds": NUMBERS,
            },
            searched=frozenset({"gap", "proof", "status"}),
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
