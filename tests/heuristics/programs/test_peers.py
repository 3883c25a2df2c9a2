"""Balancers of serving systems: the published examples, what is particular to each, and legality of every map."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.heuristics import METHODS, rebalance
from eplb_gap.heuristics.moves.relabel import arrivals, keep_slots, moved
from eplb_gap.heuristics.programs.flashlb import greedy_history
from eplb_gap.heuristics.programs.peers import PEERS
from eplb_gap.heuristics.programs.swift_balance import initial_map
from eplb_gap.heuristics.programs.tensorrt_llm import replica_counts
from eplb_gap.problem import Deployment, InputError, Placement, verify
from eplb_gap.problem.bounds.bounds import adams_counts
from eplb_gap.problem.metrics import duplicates

FLASHLB_EXAMPLE = np.array([[600, 560, 120, 120, 20, 10, 10, 10]])
README_LOADS = np.array(
    [[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86], [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]]
)
README = Deployment.preset("deepseek-readme")
GLOBAL = Deployment.preset("dsv3-prefill-ep32").as_global()
FOUR_GPUS = Deployment(12, 16, 4)
HISTORY = np.stack([README_LOADS, README_LOADS[:, ::-1], np.roll(README_LOADS, 5, axis=1)])
IN_USE = Placement([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 3, 6, 9], [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 5, 8, 2, 11]], 12)


def skewed(layers, experts=256, seed=1):
    generator = np.random.default_rng(seed)
    return generator.poisson(np.exp(0.7 * generator.normal(size=(layers, experts))) * 5000)


def relief(weights, slots):
    return rebalance(np.array([weights]), Deployment(len(weights), slots, 1), "sglang-vec").counts()[0].tolist()


@pytest.mark.parametrize(
    ("loads", "slots", "counts"),
    [
        ([10, 5, 2, 15, 8], 9, [2, 1, 1, 3, 2]),
        ([1, 4, 2, 1], 8, [1, 4, 2, 1]),
        ([0, 0, 0, 0], 6, [2, 2, 1, 1]),
        ([0, 10, 0], 4, [1, 2, 1]),
        ([7, 7, 7], 4, [1, 1, 2]),  # not published: ties go to the higher expert
    ],
)
def test_tensorrt_llms_published_replica_counts(loads, slots, counts):
    assert replica_counts(np.array(loads, dtype=float), slots).tolist() == counts


def test_tensorrt_llm_places_the_largest_replica_on_the_lightest_rank_whatever_it_holds():
    # Replicas 5, 5, 4, 3, 2, 1 of experts 0, 0, 1, 2, 3, 4 on two ranks.
    placement = rebalance(np.array([[10, 4, 3, 2, 1]]), Deployment(5, 6, 2), "tensorrt-llm")
    assert placement.phy2log.tolist() == [[0, 1, 4, 0, 2, 3]]
    # Replicas 3, 3, 3, 1 on two ranks of two slots: the third 3 joins the first on rank 0.
    assert rebalance(np.array([[9, 1]]), Deployment(2, 4, 2), "tensorrt-llm").phy2log.tolist() == [[0, 0, 0, 1]]


def test_flashlb_beats_greedy_replication_on_its_published_example():
    deployment = Deployment(8, 16, 8)
    assert verify(rebalance(FLASHLB_EXAMPLE, deployment, "initial_program"), FLASHLB_EXAMPLE, deployment) == [232]
    found = verify(rebalance(FLASHLB_EXAMPLE, deployment, "flashlb"), FLASHLB_EXAMPLE, deployment)[0]
    assert Fraction(590, 3) <= found <= 205  # the proven optimum and the published claim


def test_flashlb_takes_replicas_from_the_hot_block_where_that_packs_better():
    # The greedy's counts 4, 2 put two replicas of 30 on one of three GPUs; 3, 3 pair 40 with 13.3 on each.
    loads = np.array([[120, 40]])
    assert greedy_history(loads[0].astype(float), 4)[-1].tolist() == [4, 2]
    assert rebalance(loads, Deployment(2, 6, 3), "flashlb").counts().tolist() == [[3, 3]]


def test_flashlbs_history_gives_one_replica_at_a_time():
    assert greedy_history(np.array([9.0, 4.0, 1.0]), 3).tolist() == [[1, 1, 1], [2, 1, 1], [3, 1, 1], [3, 2, 1]]


def test_vllm_ascend_gives_its_first_gpus_one_extra_replica_each_in_the_order_of_experts():
    # Replicas of 10, 5, 8 and 1; the extra ones of experts 0, 0, 2, 2 open the GPUs. Then expert 0 goes to GPU 2 (8), expert 2
    # to GPU 0 (10, GPU 3 is lighter but holds it), expert 1 to GPU 3 (8), expert 3 to GPU 1.
    placement = rebalance(np.array([[30, 5, 24, 1]]), Deployment(4, 8, 4), "vllm-ascend")
    assert placement.by_gpu(4).tolist() == [[[0, 2], [0, 3], [2, 0], [2, 1]]]


def test_vllm_ascend_keeps_replicas_apart_while_a_gpu_has_room():
    loads = skewed(20)
    assert not duplicates(rebalance(loads, GLOBAL, "vllm-ascend"), 32).any()
    assert duplicates(rebalance(loads, GLOBAL, "initial_program"), 32).any()
    # The original would overfill the last GPU here: only GPU 0 has room for the last expert, which it holds already.
    assert sorted(rebalance(np.array([[9, 1]]), Deployment(2, 3, 1), "vllm-ascend").phy2log[0].tolist()) == [0, 0, 1]


def test_vllm_ascend_refuses_more_extra_replicas_than_gpus():
    with pytest.raises(InputError, match=r"num_slots - num_experts is 6, at most num_gpus = 3"):
        rebalance(np.ones((1, 12), int), Deployment(12, 18, 3), "vllm-ascend")


@pytest.mark.parametrize("method", ["tensorrt-llm", "vllm-ascend"])
def test_compiled_replication_is_adams(method):
    loads = skewed(5)
    placement = rebalance(loads, GLOBAL, method)
    assert placement.counts().tolist() == [adams_counts(row.tolist(), 288, 288) for row in loads]


def test_sglang_relieves_the_largest_replica():
    assert relief([90, 40, 20], 5) == [3, 1, 1]
    loads = skewed(5)
    assert (rebalance(loads, GLOBAL, "sglang-vec").counts() == rebalance(loads, GLOBAL, "initial_program").counts()).all()


def test_sglang_breaks_ties_towards_the_higher_expert_where_float32_can():
    assert relief([4, 4, 1], 4) == [1, 2, 1]
    # 1e-4 is nothing beside 2**20: no replica lowers the maximum of two equals, and the first expert gets it.
    assert relief([1, 2**20, 2**20], 4) == [2, 1, 1]


def test_sglang_deals_in_a_snake_on_every_node():
    # Groups of 15 and 14 on nodes 0 and 1; replicas of 4.5, 4.5, 4, 2 on node 0 and of 5, 4, 4, 1 on node 1.
    loads = np.array([[9, 4, 2, 8, 5, 1]])
    deployment = Deployment(6, 8, 4, num_nodes=2, num_groups=2)
    assert rebalance(loads, deployment, "sglang-vec").by_gpu(4).tolist() == [[[0, 2], [0, 1], [4, 5], [3, 3]]]


def test_no_peer_beats_the_optimum_of_deepseeks_example():
    for deployment, optimum in ((README, (151, Fraction(359, 2))), (README.as_global(), (136, 172))):
        for method in PEERS:
            try:
                found = verify(rebalance(README_LOADS, deployment, method), README_LOADS, deployment)
            except InputError:
                assert deployment.policy == "hierarchical"
                continue
            assert all(f >= o for f, o in zip(found, optimum, strict=True))


@st.composite
def cases(draw):
    gpus, k = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    experts = draw(st.integers(max(1, gpus * k - gpus), gpus * k))
    layers = draw(st.integers(1, 2))
    row = st.lists(st.one_of(st.just(0), st.integers(0, 20), st.integers(0, 2**40)), min_size=experts, max_size=experts)
    return np.array([draw(row) for _ in range(layers)]), Deployment(experts, gpus * k, gpus)


@given(cases())
def test_every_map_is_legal(case):
    loads, deployment = case
    for peer in PEERS.values():
        if peer.refusal(deployment) is not None:
            assert peer.name == "swift-balance" and deployment.slots_per_gpu > deployment.num_experts
            continue
        for makespan, row in zip(verify(peer(loads, deployment), loads, deployment), loads, strict=True):
            assert makespan * deployment.num_gpus >= int(row.sum())


@pytest.mark.parametrize("method", ["tensorrt-llm", "vllm-ascend"])
def test_scaling_the_loads_changes_nothing(method):
    loads = skewed(3).astype(float)
    for factor in (2**-12, 2**20):
        assert (METHODS[method](loads, GLOBAL).phy2log == METHODS[method](loads * factor, GLOBAL).phy2log).all()


@pytest.mark.parametrize("method", ["tensorrt-llm", "vllm-ascend", "flashlb"])
def test_systems_without_nodes_refuse_a_hierarchical_deployment(method):
    with pytest.raises(InputError, match=f"'{method}', which plans under the global policy only"):
        rebalance(README_LOADS, README, method)


def gpus(rows, number):
    """The experts of every GPU, whatever their slots and the names of the GPUs."""
    return [sorted(sorted(gpu) for gpu in layer) for layer in np.reshape(rows, (len(rows), number, -1)).tolist()]


# Maps that the released packages return for the loads and the history above.
SGLANG_0_5_23_VEC = {
    "history": (
        HISTORY,
        [[6, 5, 10, 5, 10, 7, 11, 2, 9, 3, 8, 3, 1, 0, 4, 1], [10, 7, 1, 7, 2, 8, 3, 8, 6, 5, 6, 5, 11, 4, 9, 0]],
        README.as_global(),
    ),
    "history, hierarchical": (
        HISTORY,
        [[10, 7, 10, 6, 11, 6, 9, 8, 5, 2, 4, 3, 1, 3, 1, 0], [10, 8, 7, 8, 6, 9, 6, 11, 2, 1, 3, 1, 0, 5, 4, 5]],
        README,
    ),
    "one step, hierarchical": (
        README_LOADS,
        [[5, 7, 5, 6, 8, 4, 3, 4, 10, 2, 10, 9, 0, 1, 11, 1], [7, 10, 6, 11, 6, 8, 8, 9, 2, 4, 5, 0, 5, 1, 3, 1]],
        README,
    ),
}


@pytest.mark.parametrize("name", SGLANG_0_5_23_VEC)
def test_sglang_vec_is_the_released_one(name):
    loads, rows, deployment = SGLANG_0_5_23_VEC[name]
    assert rebalance(loads, deployment, "sglang-vec").phy2log.tolist() == rows


def test_vllms_default_is_the_released_one_and_keeps_slots_as_it_does():
    # vLLM 0.33.0, which is given the map in use.
    found = rebalance(README_LOADS[:1], FOUR_GPUS, "vllm-default")
    kept = keep_slots(found.phy2log, IN_USE.phy2log[:1], FOUR_GPUS)
    assert kept.tolist() == [[10, 8, 7, 3, 4, 10, 1, 1, 0, 5, 4, 2, 11, 5, 6, 9]]


# vLLM-Ascend 0.23.0: policies 1, 2 (from the map in use) and 3 (on one window, and on three).
VLLM_ASCEND_0_23_0 = [
    ("vllm-ascend", 1, [[0, 1, 4, 3, 4, 10, 8, 2, 5, 1, 7, 11, 10, 5, 6, 9], [5, 6, 7, 0, 3, 6, 5, 11, 7, 8, 1, 4, 9, 8, 2, 10]]),
    (
        "swift-balance",
        1,
        [[0, 1, 2, 10, 4, 5, 6, 7, 8, 9, 10, 11, 1, 3, 10, 5], [2, 10, 9, 5, 7, 6, 8, 4, 5, 11, 1, 0, 3, 8, 6, 7]],
    ),
    ("flashlb", 1, [[5, 1, 8, 7, 4, 5, 6, 8, 3, 2, 10, 11, 0, 10, 2, 9], [2, 10, 9, 8, 7, 6, 5, 4, 3, 8, 1, 11, 5, 6, 7, 0]]),
    ("flashlb", 3, [[4, 1, 2, 3, 4, 5, 6, 8, 3, 5, 10, 11, 0, 10, 7, 9], [1, 10, 9, 3, 7, 6, 5, 10, 6, 2, 5, 0, 5, 8, 4, 11]]),
]


@pytest.mark.parametrize(("method", "windows", "rows"), VLLM_ASCEND_0_23_0)
def test_vllm_ascends_policies_are_the_released_ones(method, windows, rows):
    previous = IN_USE if method == "swift-balance" else None
    found = rebalance(HISTORY[:windows] if windows > 1 else README_LOADS, FOUR_GPUS, method, previous=previous)
    assert gpus(found.phy2log, 4) == gpus(rows, 4)


def test_swift_balance_measures_every_layer_by_the_mean_load_of_the_first():
    # vLLM-Ascend 0.23.0: ten times the load on the second layer is more above the first's mean than before, so it stays.
    found = rebalance(README_LOADS * [[1], [10]], FOUR_GPUS, "swift-balance", previous=IN_USE)
    assert (found.phy2log[1] == IN_USE.phy2log[1]).all() and (found.phy2log[0] != IN_USE.phy2log[0]).any()
    assert (rebalance(README_LOADS * 0, FOUR_GPUS, "swift-balance", previous=IN_USE).phy2log == IN_USE.phy2log).all()


def test_swift_balance_starts_from_the_map_of_its_host():
    assert initial_map(8, 12, 4).reshape(4, 3).tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, 6], [6, 7, 0]]
    assert initial_map(10, 12, 4).reshape(4, 3).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [8, 9, 0]]
    host = Placement(np.tile(initial_map(12, 16, 4), (2, 1)), 12)
    given = rebalance(README_LOADS, FOUR_GPUS, "swift-balance", previous=host)
    assert (rebalance(README_LOADS, FOUR_GPUS, "swift-balance").phy2log == given.phy2log).all()


@st.composite
def maps_in_use(draw):
    gpus, k = draw(st.integers(2, 5)), draw(st.integers(1, 4))
    experts = draw(st.integers(k, gpus * k))
    order = draw(st.permutations(range(experts)))
    row = st.lists(st.one_of(st.just(0), st.integers(1, 10**6)), min_size=experts, max_size=experts)
    in_use = [order[slot % experts] for slot in range(gpus * k)]
    return np.array([draw(row)]), Deployment(experts, gpus * k, gpus), Placement([in_use], experts)


@given(maps_in_use())
def test_swift_balance_moves_few_replicas_and_keeps_the_slots_of_the_others(case):
    loads, deployment, in_use = case
    found = rebalance(loads, deployment, "swift-balance", previous=in_use)
    after, before = verify(found, loads, deployment)[0], verify(in_use, loads, deployment)[0]
    assert not duplicates(found, deployment).any()
    # What a GPU receives: an expert for each redundant slot that it had, and one in exchange with each other GPU at most.
    seen, redundant = set(), np.zeros(deployment.num_gpus, int)
    for slot in np.arange(deployment.num_slots).reshape(deployment.num_gpus, -1).T.ravel():
        redundant[slot // deployment.slots_per_gpu] += in_use.phy2log[0, slot] in seen
        seen.add(in_use.phy2log[0, slot])
    assert (arrivals(found, in_use, deployment)[0] <= redundant + deployment.num_gpus - 1).all()
    assert moved(found, in_use, deployment)[0] == (found.phy2log != in_use.phy2log).sum()
    if deployment.num_slots == deployment.num_experts:  # its estimates are exact, and in steps of a hundredth of the mean
        gain = before - after
        assert gain == 0 or gain * 100 * deployment.num_gpus >= 0.9999 * loads.sum()


def relieved_counts(steps, slots):
    """SGLang's rule as its description reads, in float32: all experts tried in every round."""
    experts = steps.shape[1]
    nudged = steps.astype(np.float32) + np.arange(experts, dtype=np.float32) * np.float32(1e-4)
    counts = np.ones(experts, int)
    for _ in range(slots - experts):
        sums = np.zeros(experts, np.float32)
        for step, row in enumerate(nudged):
            score = (row / counts.astype(np.float32)).astype(np.float32)
            hottest = int(score.argmax())
            value = np.full(experts, score[hottest])
            score[hottest] = np.float32(steps[step, hottest]) / np.float32(counts[hottest] + 1)
            value[hottest] = score.max()
            sums += value
        counts[int(sums.argmin())] += 1
    return counts.tolist()


def test_sglang_counts_by_the_largest_replica_of_every_step():
    generator = np.random.default_rng(6)
    differ = 0
    for _ in range(40):
        steps = generator.integers(0, 900, (generator.integers(1, 6), 6))
        found = rebalance(steps[:, None], Deployment(6, 12, 3), "sglang-vec").counts()[0].tolist()
        assert found == relieved_counts(steps, 12)
        differ += found != rebalance(steps[:, None].sum(axis=0), Deployment(6, 12, 3), "sglang-vec").counts()[0].tolist()
    assert differ > 5  # a sum of the steps would give others
    many = np.repeat(generator.integers(0, 900, (1, 1, 6)), 300, axis=0)  # more steps than one run of the partial sums has
    assert (
        rebalance(many, Deployment(6, 12, 3), "sglang-vec").counts()
        == rebalance(many[0], Deployment(6, 12, 3), "sglang-vec").counts()
    ).all()


def test_flashlb_puts_experts_together_that_are_hot_at_different_times():
    # Experts 0 and 3 rise and fall together, against 1 and 2; the released one plans alike.
    history, deployment = (
        np.array([[[103, 4, 9, 86]], [[2, 96, 98, 9]], [[80, 20, 8, 78]], [[5, 68, 71, 2]]]),
        Deployment(4, 4, 2),
    )
    assert gpus(rebalance(history, deployment, "flashlb").phy2log, 2) == [[[0, 2], [1, 3]]]
    summed = rebalance(history.sum(axis=0), deployment, "flashlb")
    assert gpus(summed.phy2log, 2) == [[[0, 3], [1, 2]]]
    assert (rebalance(history.sum(axis=0)[None], deployment, "flashlb").phy2log == summed.phy2log).all()
