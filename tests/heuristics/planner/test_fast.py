"""The project's own planner: legal without duplicates wherever possible, never worse with more effort, deterministic."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.kernels import greedy
from eplb_gap.heuristics.planner import layer_threads
from eplb_gap.heuristics.planner.fast import TOLERANCES, plan
from eplb_gap.problem import Deployment, InputError, Instance, Placement, verify
from eplb_gap.problem.bounds.bounds import best_joint_bound
from eplb_gap.problem.metrics import duplicates

EFFORTS = list(TOLERANCES)
FLAGSHIP = Deployment.preset("dsv3-prefill-ep32")


def lognormal(seed, layers, experts, sigma=0.7):
    generator = np.random.default_rng(seed)
    return np.rint(np.exp(sigma * generator.normal(size=(layers, experts))) * 5000).astype(np.int64)


def hot(seed, layers, experts):
    loads = lognormal(seed, layers, experts, 0.4)
    generator = np.random.default_rng(seed)
    for row in loads:
        row[generator.choice(experts, 3, replace=False)] *= generator.integers(5, 21, size=3)
    return loads


def strict(deployment):
    """Forbid duplicates where a map without them exists: no GPU has more slots than its node has experts."""
    on_a_node = deployment.num_experts // (deployment.num_nodes if deployment.policy == "hierarchical" else 1)
    return replace(deployment, duplicates="forbidden") if deployment.slots_per_gpu <= on_a_node else deployment


@st.composite
def problems(draw):
    nodes = draw(st.sampled_from([1, 2, 3]))
    groups = nodes * draw(st.integers(1, 3))
    experts = groups * draw(st.integers(1, 4))
    gpus = nodes * draw(st.integers(1, 6))
    k = -(-experts // gpus) + draw(st.integers(0, 3))
    policy_nodes = draw(st.sampled_from([1, nodes]))
    deployment = Deployment(experts, gpus * k, gpus, num_nodes=policy_nodes, num_groups=groups)
    load = st.one_of(st.integers(0, 30), st.integers(0, 5000))
    return np.array([draw(st.lists(load, min_size=experts, max_size=experts))]), deployment


@settings(max_examples=150)
@given(problems())
def test_maps_are_legal_without_duplicates_and_more_effort_is_never_worse(problem):
    loads, deployment = problem
    judge = strict(deployment)
    makespan = {effort: float(verify(plan(loads, deployment, effort=effort), loads, judge)[0]) for effort in EFFORTS}
    assert makespan["lpt"] >= float(Fraction(int(loads.sum()), deployment.num_gpus)) * (1 - 1e-12)
    if deployment.policy == "global":
        assert makespan["counts"] >= float(best_joint_bound(Instance.of_layer(loads[0], deployment)).value) * (1 - 1e-12)
    for less, more in (("lpt", "fast"), ("fast", "split"), ("fast", "counts")):
        assert makespan[more] <= makespan[less] * (1 + 1e-9)


@given(problems(), st.sampled_from(EFFORTS))
def test_forbidden_duplicates_and_the_number_type_change_nothing(problem, effort):
    loads, deployment = problem
    found = plan(loads, deployment, effort=effort).phy2log
    assert (plan(loads, strict(deployment), effort=effort).phy2log == found).all()
    assert (plan(loads.astype(np.float32), deployment, effort=effort).phy2log == found).all()
    for factor in (2.0, 2.0**-1000, 2.0**1000):
        assert (plan(loads * factor, deployment, effort=effort).phy2log == found).all()


@given(st.lists(st.integers(1, 2000), min_size=2, max_size=40, unique=True), st.integers(1, 5), st.integers(0, 3))
def test_counts_are_those_of_adams_with_at_most_one_replica_per_gpu(loads, gpus, extra):
    k = -(-len(loads) // gpus) + extra
    if gpus * len(loads) < gpus * k:
        return
    counts = plan([loads], Deployment(len(loads), gpus * k, gpus), effort="lpt").counts()[0]
    adams = greedy.adams_counts(np.array(loads), gpus * k, gpus)
    # Ties between experts may go either way; the sizes of the replicas do not depend on it.
    sizes, wanted = (sorted(Fraction(w, int(c)) for w, c in zip(loads, n, strict=True)) for n in (counts, adams))
    assert max(sizes) == max(wanted)
    assert sorted(counts) == sorted(adams)


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize(
    "deployment",
    [
        Deployment(1, 1, 1),
        Deployment(1, 6, 3),
        Deployment(4, 12, 3),  # every expert on every GPU, one of them twice if LPT had its way
        Deployment(8, 8, 1),
        Deployment(8, 8, 8),
        Deployment(8, 16, 8),
        Deployment(8, 16, 2, num_nodes=2, num_groups=2),  # more slots on a GPU than experts on its node
        Deployment(12, 18, 3, num_nodes=3, num_groups=12),
    ],
    ids=str,
)
def test_degenerate_loads_and_deployments(deployment, effort):
    experts = deployment.num_experts
    for loads in (
        np.zeros((2, experts), dtype=np.int64),
        np.full((1, experts), 2**60),
        np.eye(2, experts, dtype=np.int64) * 2**60,
        np.arange(experts)[None] ** 3,
    ):
        placement = plan(loads, deployment, effort=effort)
        scaled = loads >> 8  # a layer's sum must fit int64
        verify(placement, scaled, strict(deployment))
    for weight in (np.full((1, experts), 1e308), np.full((1, experts), 5e-324), np.full((1, experts), -0.0)):
        verify(plan(weight, deployment, effort=effort), np.ones((1, experts), dtype=np.int64), strict(deployment))


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize(
    "deployment",
    [FLAGSHIP, FLAGSHIP.as_global(), Deployment(256, 288, 144), Deployment(256, 288, 12), Deployment(64, 128, 4),
     Deployment(64, 192, 64), Deployment(256, 320, 320), Deployment(64, 80, 16, num_nodes=4, num_groups=16)],
    ids=str,
)  # fmt: skip
def test_hot_loads_make_no_duplicates(deployment, effort):
    loads = hot(1, 3, deployment.num_experts)
    verify(plan(loads, deployment, effort=effort), loads, strict(deployment))


def test_gaps_to_the_bound():
    loads = lognormal(2, 6, 256)
    shape = FLAGSHIP.as_global()
    mean = [Fraction(int(row.sum()), 32) for row in loads]
    for effort, gap in (("lpt", 0.02), ("fast", 0.002), ("split", 1e-4), ("counts", 2e-4)):
        found = verify(plan(loads, shape, effort=effort), loads, shape)
        assert max(float(upper / lower) - 1 for upper, lower in zip(found, mean, strict=True)) <= gap


def test_other_counts_pay_for_hot_loads():
    loads, shape = hot(3, 4, 64), Deployment(64, 96, 32)
    adams, searched = (sum(verify(rebalance(loads, shape, m), loads, shape)) for m in ("fast-lpt", "fast"))
    assert searched < adams * Fraction(98, 100)


@pytest.mark.parametrize("effort", EFFORTS)
def test_threads_change_nothing(effort):
    loads = np.concatenate([lognormal(4, 9, 64), hot(4, 4, 64)])
    for shape in (Deployment(64, 80, 16), Deployment(64, 80, 16, num_nodes=2, num_groups=4)):
        alone = plan(loads, shape, effort=effort)
        for threads in (2, 3):
            helped = plan(loads, shape, effort=effort, threads=threads)
            assert (helped.phy2log == alone.phy2log).all()
            assert (helped.ranks == alone.ranks).all()


def test_nobody_waits_for_a_helper_that_does_not_finish():
    def work(job):
        if not main_thread():
            time.sleep(0.3)
        return job, main_thread()

    def main_thread():
        return threading.current_thread() is threading.main_thread()

    found = layer_threads.run(work, 4, 2)
    assert [done for done, _ in found] == [0, 1, 2, 3]
    assert all(by_main for _, by_main in found)


def test_the_environment_sets_the_threads(monkeypatch):
    loads, shape = hot(5, 6, 64), Deployment(64, 96, 32)
    alone = plan(loads, shape)
    used = []
    run = layer_threads.run
    monkeypatch.setattr(layer_threads, "run", lambda work, jobs, threads: used.append(threads) or run(work, jobs, threads))
    monkeypatch.setenv(layer_threads.VARIABLE, "2")
    assert (plan(loads, shape).phy2log == alone.phy2log).all()
    assert used == [2]
    monkeypatch.setenv(layer_threads.VARIABLE, "many")
    with pytest.raises(InputError, match="EPLB_GAP_THREADS is 'many'; a positive integer is needed"):
        plan(loads, shape)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"effort": "most"}, "effort is 'most'"),
        ({"tolerance": -0.1}, "tolerance is -0.1"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_options_out_of_range_are_named(arguments, text):
    with pytest.raises(InputError, match=text):
        plan(np.ones((1, 4)), Deployment(4, 8, 4), **arguments)


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        ([[1, 2, 3]], "weight has 3 experts"),
        ([1, 2, 3, 4], r"of shape \(4,\)"),
        ([[1, 2, float("nan"), 4]], r"weight\[0, 2\] is nan"),
        ([[1, 2, 3, float("inf")]], r"weight\[0, 3\] is inf"),
        ([[1, -2, 3, 4]], r"weight\[0, 1\] is -2"),
        ([["a", "b", "c", "d"]], "real numbers"),
    ],
)
def test_bad_weights_are_one_clear_error(weight, text):
    with pytest.raises(InputError, match=text):
        plan(weight, Deployment(4, 8, 4))


def test_the_given_weight_is_left_alone_and_the_default_method_is_fast():
    loads = lognormal(6, 2, 64)
    before = loads.copy()
    shape = Deployment(64, 80, 16)
    placement = rebalance(loads, shape)
    assert (loads == before).all()
    assert isinstance(placement, Placement)
    assert (placement.phy2log == plan(loads, shape).phy2log).all()
    assert duplicates(placement, 16).sum() == 0


def test_importing_loads_neither_torch_nor_numba_and_planning_no_torch():
    code = """
import sys
from eplb_gap import heuristics
assert {'torch', 'numba'}.isdisjoint(sys.modules)
from eplb_gap.problem import Deployment
heuristics.rebalance([[3, 1]], Deployment(2, 4, 2))
assert 'torch' not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
