"""The seed programs against an independent reading of DeepSeek's published algorithm, and against each other."""

from __future__ import annotations

import numpy as np
import pytest

from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS
from eplb_gap.problem import Deployment
from eplb_gap.problem.metrics import balancedness_expert, balancedness_gpu


def pack(weights, packs):
    capacity = len(weights) // packs
    if capacity == 1:
        return [[i] for i in range(packs)]
    held, loads = [[] for _ in range(packs)], [np.float32(0)] * packs
    for item in sorted(range(len(weights)), key=lambda i: -weights[i]):
        best = min((p for p in range(packs) if len(held[p]) < capacity), key=lambda p: loads[p])
        held[best].append(item)
        loads[best] = np.float32(loads[best] + weights[item])
    return held


def deepseek(loads, slots, groups, nodes, gpus):
    """Physical-to-logical map of one layer, from the published description, in plain Python."""
    size = len(loads) // groups
    group_loads = [np.float32(sum(loads[g * size : (g + 1) * size])) for g in range(groups)]
    phy2log = []
    for hosted in pack(group_loads, nodes):
        experts = sorted(e for g in hosted for e in range(g * size, (g + 1) * size))
        replicas, count = list(experts), dict.fromkeys(experts, 1)
        while len(replicas) < slots // nodes:
            hottest = max(experts, key=lambda e: np.float32(loads[e]) / np.float32(count[e]))
            replicas.append(hottest)
            count[hottest] += 1
        sizes = [np.float32(loads[e]) / np.float32(count[e]) for e in replicas]
        for on_gpu in pack(sizes, gpus // nodes):
            phy2log += [replicas[i] for i in on_gpu]
    return phy2log


@pytest.mark.parametrize(
    ("slots", "groups", "nodes", "gpus"), [(16, 4, 2, 8), (24, 6, 3, 6), (16, 1, 1, 4), (12, 4, 4, 4), (18, 12, 1, 2)]
)
def test_initial_program_is_deepseeks_algorithm(slots, groups, nodes, gpus):
    generator = np.random.default_rng(slots)
    loads = generator.integers(1, 10_000, size=(25, 12))
    placement = rebalance(loads, Deployment(12, slots, gpus, num_nodes=nodes, num_groups=groups), "initial_program")
    assert placement.phy2log.tolist() == [deepseek(row.tolist(), slots, groups, nodes, gpus) for row in loads]


def lognormal(seed, layers=8):
    generator = np.random.default_rng(seed)
    group = np.repeat(generator.normal(size=(layers, 8)) * 0.5, 32, axis=1)
    return generator.poisson(np.exp(group + 0.6 * generator.normal(size=(layers, 256))) * 5000)


FLAGSHIP = Deployment.preset("dsv3-prefill-ep32")
NAMES = list(SEED_PROGRAMS)


@pytest.mark.parametrize("members", [(0, 1, 6, 7, 8), (3, 0), (5, 9), (2, 4)])
def test_expert_level_metric_cannot_tell_these_programs_apart(members):
    loads, following = lognormal(1), lognormal(2)
    for window in (loads, following):
        scores = {balancedness_expert(rebalance(loads, FLAGSHIP, NAMES[m]), window) for m in members}
        assert len(scores) == 1


def test_gpu_level_metric_tells_them_apart():
    loads = lognormal(1)
    scores = [balancedness_gpu(rebalance(loads, FLAGSHIP, name), loads, 32) for name in NAMES]
    assert len(set(scores)) >= 8
    checked, deepseek_itself, unchecked, snake = scores[8], scores[0], scores[2], scores[3]
    assert checked > deepseek_itself > unchecked
    assert deepseek_itself > snake


def test_unchecked_group_swaps_cost_expert_level_balance_too():
    loads = lognormal(3)
    kept, swapped = (balancedness_expert(rebalance(loads, FLAGSHIP, NAMES[m]), loads) for m in (0, 2))
    assert swapped < kept


def test_incremental_ratio_and_projection_change_no_counts():
    loads = lognormal(4, layers=2)
    shape = FLAGSHIP.as_global()
    assert (rebalance(loads, shape, NAMES[4]).counts() == rebalance(loads, shape, NAMES[0]).counts()).all()
