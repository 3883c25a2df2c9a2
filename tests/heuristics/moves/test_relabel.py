from __future__ import annotations

from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.moves.relabel import adopt_where_better, moved, relabel
from eplb_gap.problem import Deployment, InputError, Placement, verify
from eplb_gap.problem.dead_ranks import live_slots, with_dead

GLOBAL = [Deployment(5, 8, 4), Deployment(4, 10, 5), Deployment(3, 12, 4), Deployment(6, 6, 3), Deployment(4, 8, 1)]
HIERARCHICAL = [
    Deployment(8, 12, 6, num_nodes=2, num_groups=4),
    Deployment(8, 16, 4, num_nodes=2, num_groups=2),
    Deployment(6, 12, 6, num_nodes=3, num_groups=6),
    Deployment(4, 12, 4, num_nodes=2, num_groups=2),
]
SHAPES = [*GLOBAL, *HIERARCHICAL]


def random_map(deployment: Deployment, layers: int, generator: np.random.Generator) -> Placement:
    """Draw a legal map: groups on random nodes, there every expert once and random others, in random slots."""
    nodes = deployment.num_nodes if deployment.policy == "hierarchical" else 1
    rows = []
    for _ in range(layers):
        groups = generator.permutation(deployment.num_groups).reshape(nodes, -1)
        for hosted in groups:
            experts = np.flatnonzero(np.isin(np.arange(deployment.num_experts) // deployment.experts_per_group, hosted))
            more = generator.choice(experts, deployment.num_slots // nodes - experts.size)
            rows.append(generator.permutation(np.concatenate([experts, more])))
    return Placement(np.concatenate(rows).reshape(layers, -1), deployment.num_experts)


def renamings(deployment: Deployment) -> list[tuple[int, ...]]:
    """Return every order of the GPUs that keeps nodes together."""
    nodes = deployment.num_nodes if deployment.policy == "hierarchical" else 1
    gpus = deployment.num_gpus // nodes
    found = []
    for order in permutations(range(nodes)):
        for inside in product(permutations(range(gpus)), repeat=nodes):
            found.append(tuple(node * gpus + gpu for node, some in zip(order, inside, strict=True) for gpu in some))
    return found


def moves_by_hand(new: np.ndarray, old: np.ndarray) -> int:
    """Count, GPU by GPU, the replicas that were not there: each old one serves one new one."""
    moves = 0
    for gets, had in zip(new.tolist(), old.tolist(), strict=True):
        for expert in gets:
            if expert in had:
                had.remove(expert)
            else:
                moves += 1
    return moves


@pytest.mark.parametrize("deployment", SHAPES, ids=str)
def test_no_renaming_moves_fewer(deployment):
    generator = np.random.default_rng(1)
    placement, previous = (random_map(deployment, 6, generator) for _ in range(2))
    new, old = placement.by_gpu(deployment.num_gpus), previous.by_gpu(deployment.num_gpus)
    best = [min(moves_by_hand(new[layer, list(order)], old[layer]) for order in renamings(deployment)) for layer in range(6)]
    assert moved(relabel(placement, previous, deployment), previous, deployment).tolist() == best
    assert moved(placement, previous, deployment).tolist() == [moves_by_hand(*pair) for pair in zip(new, old, strict=True)]


@given(st.sampled_from(SHAPES), st.integers(0, 10**6))
def test_same_makespans_still_legal_and_never_more_moves(deployment, seed):
    generator = np.random.default_rng(seed)
    placement, previous = (random_map(deployment, 3, generator) for _ in range(2))
    loads = generator.integers(0, 50, (3, deployment.num_experts))
    renamed = relabel(placement, previous, deployment)
    assert verify(renamed, loads, deployment) == verify(placement, loads, deployment)
    moves = moved(renamed, previous, deployment)
    assert (moves <= moved(placement, previous, deployment)).all()
    assert moves.dtype == np.int64
    # Only what moves changes its slot.
    assert ((renamed.phy2log != previous.phy2log).sum(axis=1) == moves).all()


@given(st.sampled_from(SHAPES), st.integers(0, 10**6))
def test_a_renamed_map_is_recognised(deployment, seed):
    generator = np.random.default_rng(seed)
    previous = random_map(deployment, 2, generator)
    orders = renamings(deployment)
    rows = previous.by_gpu(deployment.num_gpus)[:, list(orders[generator.integers(len(orders))])]
    shuffled = generator.permuted(rows, axis=2).reshape(2, -1)
    renamed = relabel(Placement(shuffled, deployment.num_experts), previous, deployment)
    assert (renamed.phy2log == previous.phy2log).all()
    assert (renamed.ranks == previous.ranks).all()


def test_forbidden_duplicates_stay_absent():
    deployment = Deployment(16, 24, 8, num_nodes=2, num_groups=4, duplicates="forbidden")
    loads = np.random.default_rng(3).integers(1, 100, (2, 4, 16))
    before, after = (rebalance(window, deployment) for window in loads)
    assert verify(relabel(after, before, deployment), loads[1], deployment) == verify(after, loads[1], deployment)


def test_slots_of_one_gpu_by_hand():
    deployment = Deployment(4, 8, 2)
    previous = Placement([[0, 0, 1, 2, 3, 3, 1, 2]], 4)
    placement = Placement([[3, 2, 3, 3, 1, 0, 2, 0]], 4)
    # The GPUs change places; 1, 0, 2 and one more 0 are all there already, as are 2 and two of the three 3.
    assert relabel(placement, previous, deployment).phy2log.tolist() == [[0, 0, 1, 2, 3, 3, 3, 2]]
    assert moved(placement, previous, deployment).tolist() == [5]


def test_experts_that_do_not_exist_are_held_by_nobody():
    deployment = Deployment(3, 4, 2)
    previous = Placement([[-1, 2, 7, 1]], 3)
    placement = Placement([[1, 0, 0, 2]], 3)
    renamed = relabel(placement, previous, deployment)
    assert renamed.phy2log.tolist() == [[0, 2, 0, 1]]
    assert moved(renamed, previous, deployment).tolist() == [2]


OLD, NEW = [0, 1, 2, 3], [0, 2, 1, 3]  # two GPUs of two slots
LOADS = [[3, 1, 0, 0]]  # largest GPU load 4 before, 3 after


@pytest.mark.parametrize(("threshold", "adopted"), [(0.0, True), (0.25, True), (0.2500001, False), (2.0, False)])
def test_a_layer_must_gain_the_threshold(threshold, adopted):
    found = adopt_where_better(Placement([NEW], 4), Placement([OLD], 4), LOADS, Deployment(4, 4, 2), threshold)
    assert found.phy2log.tolist() == [NEW if adopted else OLD]


@pytest.mark.parametrize("scale", [1, 0.1, 4e307, 1e-300])
def test_every_layer_is_judged_by_itself_in_any_unit(scale):
    loads = np.array([[3, 1, 0, 0], [3, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]) * scale
    found = adopt_where_better(Placement([NEW] * 4, 4), Placement([OLD] * 4, 4), loads, Deployment(4, 4, 2))
    assert found.phy2log.tolist() == [NEW, OLD, OLD, OLD]


def test_rounding_is_no_gain():
    loads = [[0.1, 0.2, 0.3, 0.6, 0.0, 0.0]]  # 0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1 in floating point
    old, new = [0, 1, 2, 3, 4, 5], [2, 1, 0, 3, 5, 4]
    found = adopt_where_better(Placement([new], 6), Placement([old], 6), loads, Deployment(6, 6, 2))
    assert sum(loads[0][:3]) != sum(loads[0][2::-1])
    assert found.phy2log.tolist() == [old]


@pytest.mark.parametrize(
    ("deployment", "illegal"),
    [
        (Deployment(4, 4, 2), [0, 1, 2, 2]),
        (Deployment(4, 4, 2), [0, 1, 2, -1]),
        (Deployment(4, 4, 2, num_nodes=2, num_groups=2), [0, 2, 1, 3]),
    ],
)
def test_an_illegal_layer_is_replaced_whatever_it_costs(deployment, illegal):
    loads = [[9, 9, 0, 0], [9, 9, 0, 0]]  # on the first map the largest GPU load is 18
    new, better = Placement([[0, 1, 2, 3], [0, 1, 2, 3]], 4), [2, 3, 0, 1]
    found = adopt_where_better(new, Placement([illegal, better], 4), loads, deployment, 0.5)
    assert found.phy2log.tolist() == [[0, 1, 2, 3], better]


@given(st.sampled_from(SHAPES), st.integers(0, 10**6), st.sampled_from([Fraction(0), Fraction(1, 20), Fraction(3, 10)]))
def test_layers_are_of_one_map_or_the_other_and_none_gets_worse(deployment, seed, threshold):
    generator = np.random.default_rng(seed)
    placement, previous = (random_map(deployment, 4, generator) for _ in range(2))
    loads = generator.integers(0, 50, (4, deployment.num_experts))
    found = adopt_where_better(placement, previous, loads, deployment, float(threshold))
    before, after, value = (verify(m, loads, deployment) for m in (previous, placement, found))
    for layer in range(4):
        gain = before[layer] - after[layer]
        better = gain > 0 and gain >= before[layer] * threshold
        source = placement if better else previous
        assert (found.phy2log[layer] == source.phy2log[layer]).all()
        assert value[layer] <= before[layer]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"previous": Placement([[0, 1, 2]], 4)}, r"previous has shape \(1, 3\) for 4 experts; \(1, 4\) for 4 experts is needed"),
        ({"previous": Placement([OLD, OLD], 4)}, r"previous has shape \(2, 4\)"),
        ({"placement": Placement([NEW], 5)}, "placement has shape .* for 5 experts"),
        ({"loads": [[1, 2, 3]]}, r"loads has shape \(1, 3\); that of the maps, \(1, 4\)"),
        ({"loads": [[1, -2, 3, 0]]}, r"loads\[0, 1\] is -2.0; loads must be finite and non-negative"),
        ({"loads": [[1, 2, np.nan, 0]]}, r"loads\[0, 2\] is nan"),
        ({"threshold": -0.1}, "threshold is -0.1; a finite number of at least 0"),
        ({"threshold": np.nan}, "threshold is nan"),
    ],
)
def test_what_does_not_belong_together_is_refused(change, message):
    given = {"placement": Placement([NEW], 4), "previous": Placement([OLD], 4), "loads": LOADS, "threshold": 0.0, **change}
    with pytest.raises(InputError, match=message):
        adopt_where_better(deployment=Deployment(4, 4, 2), **given)
    if not {"loads", "threshold"} & set(change):
        for function in (relabel, moved):
            with pytest.raises(InputError, match=message):
                function(given["placement"], given["previous"], Deployment(4, 4, 2))


@pytest.mark.parametrize(
    "deployment",
    [
        Deployment(5, slots_per_gpu=[2, 3, 2, 1]),
        Deployment(4, 10, 5, active=[True, False, True, True, False]),
        Deployment(4, slots_per_gpu=[2, 1, 2, 3, 2], active=[True, True, True, False, True]),
    ],
    ids=str,
)
def test_live_gpus_of_equal_slots_change_places_and_no_renaming_moves_fewer(deployment):
    generator = np.random.default_rng(4)
    live, names = deployment.live, live_slots(deployment)
    ends = np.cumsum(live.slots_by_gpu)[:-1]
    experts = range(deployment.num_experts)

    def draw() -> list[int]:
        return generator.permutation([*experts, *generator.integers(0, len(experts), live.num_slots - len(experts))]).tolist()

    for _ in range(8):
        placement, previous = (with_dead(Placement([draw()], len(experts)), deployment) for _ in range(2))
        new, old = (np.split(m.phy2log[0, names], ends) for m in (placement, previous))
        orders = [o for o in permutations(range(live.num_gpus)) if all(new[g].size == old[i].size for i, g in enumerate(o))]
        best = min(sum(moves_by_hand(new[g][None], old[i][None]) for i, g in enumerate(order)) for order in orders)
        renamed = relabel(placement, previous, deployment)
        assert moved(renamed, previous, deployment).tolist() == [best]
        loads = generator.integers(0, 50, (1, len(experts)))
        assert verify(renamed, loads, deployment) == verify(placement, loads, deployment)
        kept = adopt_where_better(renamed, previous, loads, deployment)
        assert verify(kept, loads, deployment) <= verify(previous, loads, deployment)
        assert (kept.ranks[:, np.setdiff1d(np.arange(deployment.num_slots), names)] == -1).all()


def test_what_a_gpu_held_before_it_came_back_is_nothing():
    deployment, whole = Deployment(3, 6, 3, active=[True, False, True]), Deployment(3, 6, 3)
    previous = with_dead(Placement([[0, 1, 2, 0]], 3), deployment)
    placement = Placement([[0, 1, 0, 0, 2, 0]], 3)
    assert moved(placement, previous, whole).tolist() == [2]
    assert relabel(placement, previous, whole).phy2log.tolist() == [[0, 1, 0, 0, 2, 0]]


def test_nodes_stay_whole_where_asked_under_the_global_policy():
    deployment, rng = Deployment(16, 24, 12, num_nodes=3), np.random.default_rng(0)
    previous = rebalance(rng.integers(1, 100, (1, 16)), deployment)
    by_node = previous.phy2log.reshape(3, 4, 2)
    renamed = Placement(np.stack([node[rng.permutation(4)] for node in by_node[[2, 0, 1]]]).reshape(1, -1), 16)
    assert moved(relabel(renamed, previous, deployment, whole_nodes=True), previous, deployment) == 0
    mixed = Placement(previous.phy2log.reshape(12, 2)[rng.permutation(12)].reshape(1, -1), 16)
    assert moved(relabel(mixed, previous, deployment), previous, deployment) == 0
    found = relabel(mixed, previous, deployment, whole_nodes=True)
    assert moved(found, previous, deployment) > 0
    nodes = [sorted(sorted(node) for node in one.phy2log.reshape(3, 8).tolist()) for one in (found, mixed)]
    assert nodes[0] == nodes[1]
    with pytest.raises(InputError, match="needs all GPUs alive"):
        alive = Deployment(4, 8, 4, active=[True, True, True, False])
        relabel(Placement([[0, 1, 2, 3] * 2], 4), Placement([[0, 1, 2, 3] * 2], 4), alive, whole_nodes=True)
