from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap.heuristics import METHODS, rebalance
from eplb_gap.problem import Deployment, InputError, verify
from eplb_gap.problem.metrics import duplicates

DEPLOYMENTS = [
    Deployment(12, 16, 8, num_nodes=2, num_groups=4),
    Deployment(12, 18, 3, num_nodes=3, num_groups=6),
    Deployment(12, 16, 8, num_nodes=2, num_groups=3),  # groups do not divide over nodes: global
    Deployment(5, 7, 7),
    Deployment(8, 16, 1),
    Deployment(4, 4, 2, num_nodes=2, num_groups=2),
    Deployment(1, 6, 3),
]


def degenerate_loads(experts: int) -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    return [
        np.zeros((2, experts), dtype=np.int64),
        np.full((1, experts), 7),
        np.eye(3, experts, dtype=np.int64) * 1000,
        generator.poisson(np.exp(1.5 * generator.normal(size=(4, experts))) * 100),
        np.full((1, experts), 2**40),
    ]


WITHOUT_NODES = ["levi", "adaevolve", "spread-replica", "tensorrt-llm", "vllm-ascend", "flashlb", "sglang-elastic"]


def refusal(method: str, deployment: Deployment) -> str | None:
    """Return what a method says to a deployment that it cannot plan for."""
    if deployment.policy == "hierarchical" and method in WITHOUT_NODES:
        return f"{method}.*global policy only"
    if method == "vllm-ascend" and deployment.num_slots - deployment.num_experts > deployment.num_gpus:
        return f"vllm-ascend.*at most num_gpus = {deployment.num_gpus}"
    return None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=str)
def test_every_map_of_every_method_is_legal(method, deployment):
    message = refusal(method, deployment)
    for loads in degenerate_loads(deployment.num_experts):
        if message is not None:
            with pytest.raises(InputError, match=message):
                rebalance(loads, deployment, method)
            continue
        try:
            makespans = verify(rebalance(loads, deployment, method), loads, deployment)
        except InputError as error:
            # GEPA plans globally unless its hierarchical plan is as good.
            assert method == "gepa" and deployment.policy == "hierarchical" and "global policy only" in str(error)
            continue
        assert all(
            makespan >= Fraction(int(row.sum()), deployment.num_gpus) for makespan, row in zip(makespans, loads, strict=True)
        )


def test_a_history_is_planned_on_its_sum():
    history = np.random.default_rng(4).integers(1, 90, size=(3, 2, 12))
    deployment = DEPLOYMENTS[0]
    assert (rebalance(history, deployment).phy2log == rebalance(history.sum(axis=0), deployment).phy2log).all()


def test_diversity_avoids_the_duplicates_that_lpt_makes():
    loads = np.array([[100, 1, 1, 1, 1, 1]])
    deployment = Deployment(6, 9, 3)
    assert duplicates(rebalance(loads, deployment, "diversity_aware_gpu_packing"), 3)[0] < 2
    generator = np.random.default_rng(5)
    many = generator.poisson(np.exp(generator.normal(size=(40, 12))) * 100)
    shape = Deployment(12, 24, 4)
    plain, diverse = (duplicates(rebalance(many, shape, m), 4).sum() for m in ("initial_program", "diversity_aware_gpu_packing"))
    assert diverse < plain


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 5), int), np.zeros(12, int), -np.ones((1, 12), int), np.full((1, 12), np.nan), np.full((1, 12), 0.5)]
)
def test_bad_loads_are_one_clear_error(bad):
    with pytest.raises(InputError, match="loads"):
        rebalance(bad, DEPLOYMENTS[0])


def test_an_unknown_method_is_named_with_the_known_ones():
    with pytest.raises(InputError, match=r"'lpt'.*initial_program"):
        rebalance(np.ones((1, 12), int), DEPLOYMENTS[0], "lpt")


def test_importing_heuristics_does_not_import_torch():
    code = "import sys; from eplb_gap import heuristics; assert 'torch' not in sys.modules and 'ortools' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("loads", "message"),
    [
        (np.ones((1, 1, 1, 4), np.int64), r"loads has 4 axes; \[layers, experts\] or \[windows, layers, experts\] is needed"),
        ([1, 2, 3, 4], "loads has 1 axes"),
        ([[1, 2, 3, 4], [1, 2]], "loads is ragged"),
        (np.ones((0, 1, 4), np.int64), "3 non-empty axes are needed"),
    ],
)
def test_loads_of_another_shape_are_refused(loads, message):
    with pytest.raises(InputError, match=message):
        rebalance(loads, Deployment(4, 6, 2))
