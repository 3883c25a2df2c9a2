"""Traffic with a rhythm: many short phases of recurring mixes of domains under a slow daily cycle of shares and volume."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from eplb_gap.experiments.loads.moe_trace.config import Phase, RecordConfig, ServeConfig

STEPS, SEED = 1600, 20261128
STREAM = 4  # text of its own: none of the pieces that other traffic drew
DAY = 400  # steps
SHORTEST, LONGEST = 20, 60  # steps of a phase
SHARE_SWING, VOLUME_SWING = 0.5, 0.3
RARE, RARE_CHANCE = "unseen", 0.12
MIXES: Mapping[str, Mapping[str, float]] = {
    "code": {"python": 0.50, "c_headers": 0.35, "english": 0.15},
    "manuals": {"english": 0.40, "german": 0.20, "french": 0.20, "spanish": 0.20},
    "books": {"dictionary": 0.50, "computing_dictionary": 0.25, "polish": 0.25},
    RARE: {"perl": 0.45, "russian": 0.30, "python": 0.25},
}


def rhythm_phases(
    steps: int = STEPS, seed: int = SEED, mixes: Mapping[str, Mapping[str, float]] = MIXES, sequences: int = 32
) -> tuple[Phase, ...]:
    """Return phases of 20 to 60 steps, each of one of the mixes and never of the one before.

    Every domain has an hour of the day at which it is asked for most, every step of it an expected number of sequences. Both
    follow a sine over ``DAY`` steps and are linear within a phase.

    Parameters
    ----------
    steps : int
        Sum over phases. Fewer steps of the same seed are the beginning of more, but for the last phase, which is cut.
    seed : int
    mixes : mapping of str to mapping of str to float
        Shares of domains by the name of the mix, at least two beside the one called ``RARE``, which comes in one of eight
        phases; the others are equally likely.
    sequences : int
        Expected number of a step, averaged over the day.
    """
    generator = np.random.default_rng(seed)
    domains = sorted({domain for mix in mixes.values() for domain in mix})
    usual = [name for name in mixes if name != RARE]
    phases: list[Phase] = []
    first, name = 0, ""
    while first < steps:
        others = [other for other in usual if other != name]
        rare = RARE in mixes and name != RARE and generator.random() < RARE_CHANCE
        name = RARE if rare else others[generator.integers(len(others))]
        last = min(steps, first + int(generator.integers(SHORTEST, LONGEST + 1)))
        start, end = (_by_the_hour(mixes[name], domains, step) for step in (first, last))
        volume = [sequences * (1 + VOLUME_SWING * math.sin(2 * math.pi * step / DAY)) for step in (first, last)]
        phases.append(Phase(name, last - first, start, end, (round(volume[0], 3), round(volume[1], 3))))
        first = last
    return tuple(phases)


def _by_the_hour(mix: Mapping[str, float], domains: list[str], step: int) -> dict[str, float]:
    hours = {domain: domains.index(domain) / len(domains) for domain in mix}
    asked = {
        domain: share * (1 + SHARE_SWING * math.cos(2 * math.pi * (step / DAY - hours[domain]))) for domain, share in mix.items()
    }
    return {domain: round(share / sum(asked.values()), 4) for domain, share in asked.items()}


def rhythm_config(steps: int = STEPS) -> RecordConfig:
    """Return the same model as that of the shipped trace, serving traffic with a rhythm."""
    return RecordConfig(serve=ServeConfig(rhythm_phases(steps), stream=STREAM))
