"""Nothing runs for ever: adversarial loads in a process with a hard limit, since an endless compiled loop hears no deadline."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import json, sys
import numpy as np
from eplb_gap import Deployment, rebalance, replan, solve, verify
for loads, shape, gap in json.load(sys.stdin):
    deployment = Deployment(*shape)
    solution = solve([loads], deployment, target_gap=gap, time_limit=0.3)
    assert solution.lower[0] <= solution.upper[0] == verify(solution.placement, [loads], deployment)[0]
    planned = rebalance([loads], deployment, "fast-counts")
    verify(replan([loads[::-1]], deployment, planned, total_moves=2), [loads], deployment)
    print("ended", flush=True)
"""
PUBLISHED = [  # inputs that once never came back
    ([1, 2, 3, 1000], (4, 4, 2), 1e-3),
    ([1, 2, 3, 200], (4, 4, 2), 5e-3),
    ([2, 3, 4, 2000000], (4, 4, 2), 0.0),
    ([4, 0, 2, 1, 3, 2, 5, 1000000], (8, 8, 4, 2, 4), 0.0),
    ([1] * 7 + [1000], (8, 8, 4), 1e-3),
    ([78, 31, 98, 169, 51, 56, 73, 30, 30, 46, 63, 52, 98, 38, 38, 49], (16, 24, 4), 1e-3),
    (
        np.random.default_rng(848).multinomial(1000, np.random.default_rng(857).dirichlet(np.ones(32) * 3)).tolist(),
        (32, 48, 8),
        0.0,
    ),
    (np.exp(np.random.default_rng(1).normal(0, 0.3, 64) + 9).astype(int).tolist(), (64, 80, 16, 2, 16), 0.0),  # 12,870 node sets
]
SHAPES = [(4, 4, 2), (4, 8, 4), (8, 8, 4, 2, 4), (8, 12, 4), (8, 8, 8), (8, 24, 2)]
PRIMES = [2, 3, 5, 7, 11, 13, 17, 19]


def adversarial(seed: int) -> list[tuple[list[int], tuple[int, ...], float]]:
    """Return loads with zeros, ties, powers of two, primes and one expert of up to 10^15."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(40):
        shape = SHAPES[generator.integers(len(SHAPES))]
        kinds = [
            np.zeros(shape[0], int),
            np.ones(shape[0], int),
            2 ** generator.integers(0, 40, shape[0]),
            np.array(PRIMES[: shape[0]]),
        ]
        loads = kinds[generator.integers(len(kinds))].astype(np.int64)
        if generator.random() < 0.7:
            loads[generator.integers(loads.size)] = 10 ** int(generator.integers(2, 16))
        found.append((loads.tolist(), shape, float(generator.choice([0.0, 1e-6, 1e-4, 1e-3, 1e-2]))))
    return found


@pytest.mark.parametrize("cases", [PUBLISHED, adversarial(1)], ids=["published", "adversarial"])
def test_every_call_ends(cases):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(cases), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["ended"] * len(cases)
