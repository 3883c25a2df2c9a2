"""How many experts the fullest GPU of a decode step reads, by slots and choice of replicas (``eplb-gap bench network``)."""

from __future__ import annotations

from statistics import fmean

from eplb_gap import heuristics
from eplb_gap.analysis.decode.activation import CHOICES, activation
from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.loads.routing_sample import PLANNED, parts, sample
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, NUMBERS, Shape
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows
from eplb_gap.experiments.measuring.statistics import Interval, mean_interval
from eplb_gap.experiments.studies.numbers import Number, interval_text
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.deployment import Deployment

SUITE = "activated"
EXPERTS, BATCH = 256, 64
GPUS, REDUNDANT = (8, 32), (0, 32, 64, 128)
SHOWN = 32, 32
"""GPUs and redundant slots of the flagship."""


def deployment(gpus: int, redundant: int) -> Deployment:
    """Return the deployment: one node, the global policy."""
    return Deployment(EXPERTS, EXPERTS + redundant, gpus)


def name_of(gpus: int, redundant: int) -> str:
    """Return the name of the sample on a deployment."""
    return f"sample {EXPERTS}/{EXPERTS + redundant}/{gpus}, {BATCH} tokens a step"


def instance(gpus: int, redundant: int) -> Instance:
    """Return the loads of the tokens planned on and the deployment."""
    return parts()[PLANNED].loads(), deployment(gpus, redundant)


def activated_cell(gpus: int, redundant: int) -> Fields:
    """Plan for balance on the first tokens, and count what the fullest GPU reads in every step of all tokens behind them."""
    loads, shape = instance(gpus, redundant)
    every = sample()
    behind = every.part(len(parts()[PLANNED].experts), len(every.experts))
    found = activation(behind, heuristics.rebalance(loads, shape), shape, BATCH)
    return {
        "kind": "activated",
        "hash": rows.instance_hash(loads, shape),
        "parameters": {"batch": BATCH, "steps": found.active.shape[1]},
        "status": "proven" if found.proven == 1 else "not proven",
        "proven": found.proven,
        "active": found.active.mean(axis=1).tolist(),
        "bound": found.bound.mean(axis=1).tolist(),
        "ideal": found.ideal.mean(axis=1).tolist(),
        "read": {choice: found.read[choice].mean(axis=1).tolist() for choice in CHOICES},
        "tokens": {choice: found.tokens[choice].mean(axis=1).tolist() for choice in CHOICES},
    }


def cells() -> list[Cell]:
    """Return a cell per deployment."""
    return [
        Cell(SUITE, name_of(gpus, redundant), "fast", activated_cell, {"gpus": gpus, "redundant": redundant})
        for gpus in GPUS
        for redundant in REDUNDANT
    ]


def read(measured: Rows, gpus: int, redundant: int, choice: str) -> list[float]:
    """Return the experts that the fullest GPU reads, mean over steps, layer by layer."""
    found: list[float] = measured.one(suite=SUITE, instance=name_of(gpus, redundant))["read"][choice]
    return found


def against_none(measured: Rows, gpus: int, redundant: int, choice: str) -> Interval:
    """Return by what part the fullest GPU reads more than without redundant slots, mean over layers, interval over them."""
    none = read(measured, gpus, 0, "hashed")
    return mean_interval([one / base - 1 for one, base in zip(read(measured, gpus, redundant, choice), none, strict=True)])


def table(measured: Rows) -> str:
    """Return the experts that the fullest GPU reads as Markdown."""
    body = []
    for gpus in GPUS:
        for redundant in REDUNDANT:
            row = measured.one(suite=SUITE, instance=name_of(gpus, redundant))
            changes = [
                interval_text(against_none(measured, gpus, redundant, choice).scaled(100), 1, sign=True) for choice in CHOICES
            ]
            body.append(
                [
                    f"{EXPERTS}/{EXPERTS + redundant}/{gpus}",
                    f"{fmean(row['active']):.1f}",
                    *(f"{fmean(row['read'][choice]):.2f}" for choice in CHOICES),
                    f"{fmean(row['bound']):.2f}",
                    f"{fmean(row['ideal']):.2f}",
                    f"{100 * row['proven']:.1f}",
                    *(changes if redundant else ["-"] * len(CHOICES)),
                ]
            )
    header = [
        "experts/slots/GPUs",
        "active experts",
        *CHOICES,
        "bound",
        "active / GPUs",
        "best equals its bound, % of steps",
        *(f"{choice}, against no redundant slot, %" for choice in CHOICES),
    ]
    steps = measured.one(suite=SUITE)["parameters"]["steps"]
    return (
        f"## Activated experts\n\nDecode steps of {BATCH} tokens drawn from the recorded sample ({steps} a layer, 8 layers), "
        "maps planned for balance on the first tokens of the sample; none of these is in a step. Experts whose weights the "
        "fullest GPU reads, mean over steps and layers: where every token goes to a replica by a hash, where an expert's tokens "
        "go to its replicas in turn, and with the best single replica for every expert and step, against the bound that its "
        "witness proves. The last columns: 95 % bootstrap interval over the 8 layers.\n\n" + markdown(header, body) + "\n"
    )


def levels(measured: Rows) -> list[list[str]]:
    """Return what is asked and measured of the best choice."""
    row = measured.one(suite=SUITE, instance=name_of(*SHOWN))
    best, hashed = (fmean(row["read"][choice]) for choice in ("best", "hashed"))
    proven = min(found["proven"] for found in measured.where(suite=SUITE))
    shape = f"{EXPERTS}/{EXPERTS + SHOWN[1]}/{SHOWN[0]}"
    said = f"{100 * proven:.1f} % of steps at least; {shape}: {best:.2f} against {hashed:.2f} hashed"
    return [
        [f"activated experts, {BATCH} tokens a step, best choice of replicas", "equals its bound", said, yes_or_no(proven == 1)]
    ]


def _number(gpus: int, redundant: int, choice: str) -> Number:
    patterns = tuple((SUITE, name_of(gpus, slots), "fast") for slots in (0, redundant))
    return Number(patterns, lambda m: interval_text(against_none(m, gpus, redundant, choice).scaled(100), 1, sign=True))


STUDY = Study(
    SUITE,
    job="network",
    about="experts that the fullest GPU of a decode step reads, by redundant slots and choice of replicas",
    cells=cells,
    shapes=(
        Shape(
            "activated",
            CELL
            | {
                "proven": "number",
                "active": NUMBERS,
                "bound": NUMBERS,
                "ideal": NUMBERS,
                "read": "object of list of number",
                "tokens": "object of list of number",
            },
        ),
    ),
    instance=instance,
    table=table,
    levels=levels,
    numbers={f"activated-{choice}": _number(*SHOWN, choice) for choice in ("hashed", "best")},
)
