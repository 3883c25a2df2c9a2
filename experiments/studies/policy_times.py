"""Which policy takes less time, predicted from published profiles (part of ``eplb-gap bench network``); from the rows of fronts.

The map of a layer is chosen on the tokens planned on, its time is that of the tokens it serves.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

import numpy as np

from eplb_gap.analysis.step_time.profile import read_profile
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.routing_sample import PLANNED, other_phases, parts, sample
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.measuring.statistics import Interval, mean_interval
from eplb_gap.experiments.studies.numbers import Number, interval_text
from eplb_gap.experiments.studies.predicted_layers import NETWORKS, OF_EXPERTS, TILES
from eplb_gap.experiments.studies.study import Study
from eplb_gap.experiments.studies.visit_front import BALANCE, GPUS, LAYERS, SUITE, Point, candidates, name_of


def step_tokens() -> int:
    """Return the tokens of a recorded step; all have as many, so that a mean over tokens is one over steps."""
    steps = sample().step
    assert steps is not None
    [tokens] = set(np.unique(steps, return_counts=True)[1].tolist())
    return int(tokens)


def balanced(measured: Rows, policy: str) -> list[Point]:
    """Return the map for balance of every layer."""
    return [points[0] for points in measured.one(suite=SUITE, instance=name_of(policy), method=BALANCE)["points"]]


def quickest(measured: Rows, policy: str, profile: str) -> list[Point]:
    """Return of every layer the map that is predicted to take the least time on the tokens planned on."""
    return [min(points, key=lambda point: sum(point["predicted"][profile][PLANNED])) for points in candidates(measured, policy)]


def seconds(point: Point, profile: str, names: Iterable[str]) -> tuple[float, float]:
    """Return the predicted times of experts and network on some parts of the routing, every token counted alike."""
    tokens = {name: len(parts()[name].experts) for name in names}
    experts, network = (
        sum(n * point["predicted"][profile][name][which] for name, n in tokens.items()) / sum(tokens.values()) for which in (0, 1)
    )
    return experts, network


def longer(measured: Rows, profile: str, names: Iterable[str]) -> Interval:
    """Return by what part of its time the best hierarchical map takes longer than the best global one; interval over layers."""
    return compared(quickest(measured, "hierarchical", profile), quickest(measured, "global", profile), profile, names)


def compared(ours: list[Point], base: list[Point], profile: str, names: Iterable[str]) -> Interval:
    """Return by what part of their time some maps take longer than others, mean over layers, with an interval over these."""
    told = list(names)
    times = [[sum(seconds(point, profile, told)) for point in of] for of in (ours, base)]
    return mean_interval([one / other - 1 for one, other in zip(*times, strict=True)])


def winner(found: Interval) -> str:
    """Return the policy that takes less time, where the interval says so."""
    return "global" if found.low > 0 else "hierarchical" if found.high < 0 else "neither"


def table(measured: Rows) -> str:
    """Return the comparison of policies as Markdown."""
    body = []
    for network in NETWORKS:
        for what, names in _stretches():
            found = longer(measured, network.profile, names)
            chosen = [("global, balance only", balanced(measured, "global"))]
            chosen += [(policy, quickest(measured, policy, network.profile)) for policy in ("global", "hierarchical")]
            local = compared(chosen[1][1], chosen[0][1], network.profile, names)
            times = [" + ".join(f"{1000 * fmean(of):.2f}" for of in _two(points, network.profile, names)) for _, points in chosen]
            body.append(
                [
                    network.title,
                    what,
                    *times,
                    interval_text(local.scaled(100), 1, sign=True),
                    interval_text(found.scaled(100), 1, sign=True),
                    winner(found),
                ]
            )
    header = [
        "network",
        "tokens",
        "global, balance only, ms",
        "global, best, ms",
        "hierarchical, best, ms",
        "global, best against balance only, %",
        "hierarchical against global, %",
        "less time",
    ]
    cited = "\n".join(
        f"* *{n.title}*, {n.tokens:,} tokens a GPU. Network by `{n.profile}`: {_cited(n.profile)}." for n in NETWORKS
    )
    return (
        f"## Hierarchical against global, predicted\n\nPredicted part of a MoE layer's time, {OF_EXPERTS} + network "
        "(dispatch and combine), under the best map of each policy by this prediction on the tokens planned on. A step is one "
        f"recorded step of {step_tokens():,} tokens, its routing scaled to the tokens a GPU below times {GPUS} GPUs; every step "
        "is predicted by itself, figures are means over steps and layers. Tokens come evenly from all GPUs, nothing overlaps, a "
        f"profile of fewer GPUs is taken for {GPUS}. Nothing here was timed. Interval: 95 % bootstrap over the {LAYERS} layers "
        f"of one model; *less time*: where it excludes zero.\n\n{cited}\n* The {OF_EXPERTS} by `{TILES}`: {_cited(TILES)}.\n\n"
        + markdown(header, body)
        + "\n"
    )


def _stretches() -> list[tuple[str, tuple[str, ...]]]:
    names = [name for name in parts() if name != PLANNED]
    return [("planned", (PLANNED,)), ("served, other phases", other_phases()), *((name, (name,)) for name in names)]


def _two(points: list[Point], profile: str, names: Iterable[str]) -> list[list[float]]:
    told = list(names)
    return [list(of) for of in zip(*(seconds(point, profile, told) for point in points), strict=True)]


def _cited(name: str) -> str:
    profile = read_profile(name)
    return f"{profile.source}; measured on {profile.measured_on}"


def _number(profile: str) -> Number:
    pattern = (SUITE, name_of("*"), "*")
    return Number((pattern,), lambda m: interval_text(longer(m, profile, other_phases()).scaled(100), 1, sign=True))


STUDY = Study(
    SUITE,
    job="network",
    table=table,
    numbers={f"policies-{short}": _number(n.profile) for short, n in zip(("rdma", "nvlink", "decode"), NETWORKS, strict=True)},
)
