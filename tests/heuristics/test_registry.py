from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap.heuristics import HEURISTICS, METHODS, rebalance
from eplb_gap.heuristics.config import FastConfig
from eplb_gap.problem import Deployment, InputError, Placement, PlacementError, verify
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


MIXED = [*DEPLOYMENTS, Deployment(12, 16, 4, 2, 2, duplicates="forbidden"), Deployment(6, 9, 3, duplicates="forbidden")]
UNEQUAL = Deployment(5, slots_per_gpu=[1, 3, 4])


@pytest.mark.parametrize("method", HEURISTICS)
@pytest.mark.parametrize("deployment", [*MIXED, UNEQUAL], ids=str)
def test_every_map_of_every_method_is_legal_or_refused_as_its_record_says(method, deployment):
    record = HEURISTICS[method]
    reason = record.refusal(deployment)
    assert record.plans(deployment) <= (reason is None)
    may_repeat = deployment.duplicates == "forbidden"
    judged = replace(deployment, duplicates="allowed") if may_repeat else deployment
    for loads in degenerate_loads(deployment.num_experts):
        if reason is not None:
            with pytest.raises(InputError) as refused:
                rebalance(loads, deployment, method)
            assert str(refused.value) == reason and method in reason
            continue
        try:
            makespans = verify(rebalance(loads, deployment, method), loads, judged)
        except InputError as error:
            assert not record.plans(deployment) and "global policy only" in str(error)
            continue
        assert all(
            makespan >= Fraction(int(row.sum()), deployment.num_gpus) for makespan, row in zip(makespans, loads, strict=True)
        )


@pytest.mark.parametrize("method", ["tensorrt-llm", "vllm-ascend", "swift-balance", "flashlb"])
def test_maps_of_balancers_without_nodes_would_be_illegal_under_the_hierarchical_policy(method):
    deployment = DEPLOYMENTS[0]
    loads = degenerate_loads(deployment.num_experts)[3]
    with pytest.raises(PlacementError, match=r"on one node|hosts"):
        verify(HEURISTICS[method].plan(loads, deployment), loads, deployment)


def test_records_know_the_balancers_that_are_peculiar():
    flagship = Deployment.preset("dsv3-prefill-ep32")
    refused = {name for name, record in HEURISTICS.items() if not record.plans(flagship)}
    without_nodes = {"levi", "adaevolve", "spread-replica", "tensorrt-llm", "vllm-ascend", "flashlb", "sglang-elastic"}
    assert refused == {*without_nodes, "swift-balance", "gepa"}
    assert all(record.plans(flagship.as_global()) for record in HEURISTICS.values())
    assert {name for name, record in HEURISTICS.items() if record.history} == {"sample-average", "sglang-vec", "flashlb"}
    assert [name for name, record in HEURISTICS.items() if record.improve is not None] == ["swift-balance"]
    assert [name for name, record in HEURISTICS.items() if record.unequal] == ["fast"]  # what a refusal names
    many = Deployment(8, 16, 4)
    assert [name for name, record in HEURISTICS.items() if not record.plans(many)] == ["vllm-ascend"]


def test_a_name_is_its_records_name():
    assert all(name == record.name and METHODS[name] is record for name, record in HEURISTICS.items())


def test_a_history_is_planned_on_its_sum():
    history = np.random.default_rng(4).integers(1, 90, size=(3, 2, 12))
    deployment = DEPLOYMENTS[0]
    assert (rebalance(history, deployment).phy2log == rebalance(history.sum(axis=0), deployment).phy2log).all()


IN_USE = Placement([[0, 1, 2, 3, 0, 1]], 4)  # on three GPUs


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "fast"}, InputError, r"previous is given, but method 'fast' plans anew; eplb_gap\.replan moves"),
        ({"config": FastConfig()}, InputError, "previous is given, but config plans anew"),
        ({"loads": np.ones((2, 4), int)}, InputError, "previous has 1 layers; the loads have 2"),
        ({"previous": Placement([[0, 1, 2, 3]], 4)}, InputError, r"previous: placement has shape \(1, 4\) for 4 experts"),
        ({"previous": Placement([[0, 1, 2, 0, 0, 1]], 4)}, PlacementError, "previous: layer 0: expert 3 has no replica"),
        ({"deployment": Deployment(4, 6, 3, active=[True, False, True])}, PlacementError, "previous: layer 0: expert 2 has no"),
    ],
)
def test_a_map_in_use_is_taken_by_methods_that_improve_one_if_it_is_whole(arguments, error, message):
    given = {"loads": np.ones((1, 4), int), "deployment": Deployment(4, 6, 3), "previous": IN_USE, "config": None, **arguments}
    given.setdefault("method", "fast" if given["config"] else "swift-balance")
    with pytest.raises(error, match=message):
        rebalance(**given)


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
