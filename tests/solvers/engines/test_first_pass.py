from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from eplb_gap.experiments.loads.random_instances import flat_instances, hierarchical_cases
from eplb_gap.problem import Deployment, Placement, verify
from eplb_gap.problem.bounds.partition import partitions
from eplb_gap.solvers import solve
from eplb_gap.solvers.engines import first_pass as module
from eplb_gap.solvers.engines.first_pass import first_pass
from eplb_gap.solvers.engines.oracle import best_map


@pytest.mark.parametrize("instance", flat_instances(40, seed=11), ids=lambda i: i.digest)
def test_flat_bound_and_map_enclose_the_optimum(instance):
    shape = Deployment(instance.num_experts, instance.num_slots, instance.num_gpus, duplicates=instance.duplicates)
    loads = np.array(instance.loads)
    found = first_pass(loads, shape, 0.0, 0.2, 0)
    best = instance.makespan(best_map(instance))
    assert found.bound.value <= best
    if found.slots is not None:
        assert verify(Placement(found.slots[None], shape.num_experts), loads[None], shape)[0] >= best


@pytest.mark.parametrize("number", range(14))
def test_hierarchical_maps_are_legal_and_above_the_bound(number):
    loads, shape = hierarchical_cases(14, seed=12)[number]
    found = first_pass(loads[0], shape, 0.0, 0.2, 0)
    if found.slots is not None:
        assert verify(Placement(found.slots[None], shape.num_experts), loads, shape)[0] >= found.bound.value


def test_one_slot_per_gpu_is_solved_by_adams():
    loads = np.random.default_rng(1).integers(1, 999, size=20)
    shape = Deployment(20, 30, 30)
    found = first_pass(loads, shape, 0.0, 0.1, 0)
    assert found.bound.kind == "apportionment"
    assert verify(Placement(found.slots[None], 20), loads[None], shape) == [found.bound.value]


def test_the_flagship_is_certified_within_a_hundredth_of_a_percent():
    generator = np.random.default_rng(2)
    loads = generator.poisson(np.exp(0.5 * generator.normal(size=(4, 256))) * 4000)
    for shape in (Deployment.preset("dsv3-prefill-ep32"), Deployment.preset("dsv3-prefill-ep32").as_global()):
        found = [first_pass(row, shape, 1e-4, 1.0, 0) for row in loads]
        upper = verify(Placement(np.array([f.slots for f in found]), 256), loads, shape)
        assert all(value <= f.bound.value * (1 + 1e-4) for value, f in zip(upper, found, strict=True))


def test_loads_that_could_overflow_are_left_to_exact_code():
    assert first_pass(np.array([2**41, 1]), Deployment(2, 4, 2), 0.0, 1.0, 0) is None


@pytest.mark.parametrize(("groups", "nodes"), [(4, 2), (6, 3), (8, 4), (8, 2), (5, 5)])
def test_the_groups_are_partitioned_at_the_bottleneck(groups, nodes):
    # One expert a group, one slot an expert, one GPU a node: the best map is the best partition, which brute force knows.
    shape = Deployment(groups, groups, nodes, num_nodes=nodes, num_groups=groups)
    for seed in range(5):
        loads = np.random.default_rng(seed).integers(1, 1000, size=groups)
        best = min(
            max(sum(loads[list(node)]) for node in partition) for partition in partitions(tuple(range(groups)), groups // nodes)
        )
        found = first_pass(loads, shape, 0.0, 0.1, 0)
        assert verify(Placement(found.slots[None], groups), loads[None], shape) == [found.bound.value] == [best]


def test_too_many_partitions_are_left_to_the_lazy_search():
    assert first_pass(np.arange(1, 17), Deployment(16, 16, 4, num_nodes=4, num_groups=16), 0.0, 0.1, 0) is None


def test_bounds_are_of_python_integers_also_where_kernels_are_interpreted(monkeypatch):
    monkeypatch.setattr(module, "_flat", lambda *arguments: (np.int64(28), np.int64(3), np.inf, np.inf))
    value = first_pass(np.array([7, 7, 7, 7]), Deployment(4, 6, 3), 0.0, 0.1, 0).bound.value
    assert (type(value.numerator), type(value.denominator)) == (int, int)


def test_a_layer_within_its_target_has_a_bound_that_some_map_could_reach() -> None:
    solution = solve([[20, 19, 18, 17, 16, 11]], Deployment(6, 8, 4), target_gap=0.5)  # mean 101/4; loads are sixths at best
    assert solution.lower == [Fraction(76, 3)]
    assert solution.upper[0] <= solution.lower[0] * Fraction(3, 2)
