"""Controllers and the certified limit against the best sequence of maps, found by enumeration, on random small deployments.

``python -m eplb_gap.experiments.fuzzing.controller_sweep [--instances N] [--seed S]`` replays every controller on N random traces
and compares: no bound may exceed the best sequence, no controller may serve less, with limited moves not less than the best
sequence within them. It prints the instances and the disagreements, and ends with 1 if there is one.
"""

from __future__ import annotations

import argparse

import numpy as np

from eplb_gap import Controller, Deployment, LoadTrace, replay
from eplb_gap.analysis.replay.chain import chain_of
from eplb_gap.experiments.fuzzing.map_sequences import least_served

SHAPES = (
    Deployment(3, 4, 2),
    Deployment(4, 4, 2),
    Deployment(2, 4, 2, duplicates="forbidden"),
    Deployment(4, 4, 2, 2, 2),
    Deployment(3, 3, 3),
    Deployment(2, 4, 4, 2, 2),
)
MOVES = 0.34
"""Part of the replicas that controllers of limited moves may move: one of three or four."""


def disagreements(number: int, seed: int) -> list[str]:
    """Replay one random trace and return what contradicts the best sequences of maps.

    Parameters
    ----------
    number : int
        Of the instance; shapes take turns.
    seed : int
    """
    shape = SHAPES[number % len(SHAPES)]
    generator = np.random.default_rng([seed, number])
    interval, intervals = int(generator.integers(1, 4)), int(generator.integers(3, 5))
    highest = 2 + 10 ** (number // len(SHAPES) % 4)
    loads = generator.integers(0, highest, (interval * intervals, 1, shape.num_experts))
    first = interval  # a controller serves its first map from there on
    judged = loads[first:, 0]
    controllers = [
        Controller("periodic", interval=interval),
        Controller("clairvoyant", interval=interval),
        Controller("budgeted", interval=interval, moves=MOVES),
        Controller("adaptive", interval=interval),
        Controller("clairvoyant", interval=interval, moves=MOVES),
    ]
    result = replay(LoadTrace(loads), shape, controllers, limit=interval)
    limit = result.limit
    assert limit is not None
    starts = list(range(0, len(judged), interval))
    alone = least_served(judged, shape, list(range(len(judged))), None)
    free = least_served(judged, shape, starts, None)
    within = least_served(judged, shape, starts, int(MOVES * shape.num_slots))
    chain = [
        ("mean", limit.mean),
        ("bound of steps", limit.step_lower),
        ("best maps of steps", alone),
        ("best maps of intervals", free),
        ("best maps within the moves", within),
    ]
    ordered = [(chain[i], chain[i + 1]) for i in range(len(chain) - 1)]
    ordered += [(("best maps of steps", alone), ("maps found for steps", limit.step_upper))]
    ordered += [(("bound of intervals", limit.interval_lower), ("best maps of intervals", free))]
    ordered += [(("best maps of intervals", free), ("maps found for intervals", limit.interval_upper))]
    for run in result.runs:
        least = ("best maps of intervals", free) if run.controller.moves is None else ("best maps within the moves", within)
        ordered.append((least, (run.controller.label, run.served)))
        parts = chain_of(result, run)
        if parts is None or limit.mean + sum(parts.parts.values()) != parts.total or min(parts.parts.values()) < 0:
            return [f"instance {number}: the chain of {run.controller.label} does not add up"]
    return [f"instance {number}: {low} {value} > {high} {other}" for (low, value), (high, other) in ordered if value > other]


def sweep(instances: int, seed: int) -> list[str]:
    """Return the disagreements of all instances."""
    return [text for number in range(instances) for text in disagreements(number, seed)]


def main() -> int:
    """Read the command line and sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = sweep(given.instances, given.seed)
    print(*found, f"{given.instances} instances, {len(found)} disagreements", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
