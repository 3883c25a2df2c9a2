"""The comparison with released packages: equal balancers are equal, a defective one is reported, a package may be missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eplb_gap.experiments.hosts import peers_check
from eplb_gap.experiments.hosts.originals import ORIGINALS, as_map
from eplb_gap.experiments.hosts.packages import Unavailable
from eplb_gap.experiments.hosts.peer_cases import KINDS, SHAPES, Case, cases, host_map, tied
from eplb_gap.experiments.hosts.peer_tally import Tally, compare, time_ratio
from eplb_gap.experiments.hosts.peers_check import LEAST_LAYERS, Result, our_plan, table
from eplb_gap.heuristics import HEURISTICS, rebalance
from eplb_gap.problem import Deployment, Placement
from eplb_gap.problem.metrics import duplicates

SMALL = [case for case in cases("global") if case.deployment.num_experts < 16]
LAYERS = sum(len(case.totals) for case in SMALL)


def fake(case):
    """An original of another form: nested lists, the replicas of its greedy one GPU after the other."""
    return lambda: rebalance(case.loads, case.deployment, "tensorrt-llm").by_gpu(case.deployment.num_gpus).tolist()


def defective(case):
    """Ours, but for layers in which experts 1 and 2 are taken for each other."""
    found = rebalance(case.loads, case.deployment, "tensorrt-llm").phy2log
    return Placement(np.select([found == 1, found == 2], [2, 1], found), case.deployment.num_experts)


def test_a_balancer_is_equal_to_itself_and_a_defective_one_is_reported():
    same = compare(fake, our_plan("tensorrt-llm"), SMALL)
    assert (same.equal, same.counts, same.tied_equal, same.worst, same.failed) == (same.layers, same.layers, same.tied, 0, 0)
    assert same.layers + same.tied == LAYERS and min(same.layers, same.tied) > 50
    assert not Result(same, (1.0, 1.0)).alike  # too few layers to say so
    same = replace(same, layers=LEAST_LAYERS, equal=LEAST_LAYERS)
    assert Result(same, (1.0, 1.0)).alike
    wrong = compare(fake, defective, SMALL)
    assert wrong.layers + wrong.tied == LAYERS
    assert wrong.equal < 0.2 * wrong.layers and wrong.counts < wrong.layers and wrong.worst > 0.1
    many = replace(wrong, layers=10 * wrong.layers, equal=10 * wrong.equal)
    assert many.layers > LEAST_LAYERS and not Result(many, (1.0, 0.5)).alike
    assert not Result(same, (1.0, 1.1)).alike  # slowed down by our hand
    for failed, allowed, alike in ((1, 0.0, False), (20, 0.04, True), (40, 0.04, False)):
        part = Tally(layers=450, equal=450, tied=50, tied_equal=0, failed=failed)
        assert Result(part, (1.0, 1.0), allowed).alike is alike
    shown = table([(ORIGINALS[0], Result(same, (0.002, 0.001))), (ORIGINALS[-1], Result(wrong, (0.002, 0.001)))]).splitlines()
    assert "100.00 %" in shown[2] and "0.50" in shown[2] and "**" not in shown[2]
    assert "FlashLB (global, 8 steps) **" in shown[3]


def test_layers_that_the_original_cannot_plan_count_apart():
    def raising(case):
        def call():
            if (case.totals[:, 0] == 0).any():
                raise ValueError("expert 0 has no load")
            return fake(case)()

        return call

    def illegal(case):
        return lambda: np.zeros((len(case.totals), case.deployment.num_slots), int)

    idle = sum(int((case.totals[:, 0] == 0).sum()) for case in SMALL)
    tally = compare(raising, our_plan("tensorrt-llm"), SMALL)
    assert tally.failed == idle > 0
    assert tally.layers + tally.tied == LAYERS - idle
    assert compare(illegal, our_plan("tensorrt-llm"), SMALL) == Tally(failed=LAYERS)
    discarded = compare(fake, our_plan("tensorrt-llm"), SMALL, lambda found, case: case.totals[:, 0] == 0)
    assert discarded.failed == idle and discarded.equal == discarded.layers


def test_dead_gpus_hold_no_replica():
    asked = [case for case in cases("global", dead=True) if case.deployment.num_experts in (12, 64)]
    assert any(case.deployment.dead_gpus for case in asked)
    ours = our_plan("sglang-elastic")
    same = compare(lambda case: lambda: ours(case).phy2log, ours, asked)
    assert same.failed == 0 and same.equal == same.layers > 0 and same.tied_equal == same.tied


def test_cases_are_of_ten_shapes_and_six_kinds_with_legal_maps_in_use():
    assert len(SHAPES) == 10 and len(KINDS) == 6
    assert [case.loads.tolist() for case in SMALL[:3]] == [case.loads.tolist() for case in cases("global")][-12:-9]
    assert {case.deployment.policy for case in cases("hierarchical")} == {"hierarchical"}
    stepped = next(cases("global", steps=3))
    assert stepped.loads.shape == (3, *stepped.totals.shape) and (stepped.totals == stepped.loads.sum(axis=0)).all()
    in_use = host_map(Deployment(8, 16, 8), 5, np.random.default_rng(0))
    assert (in_use.counts() == 2).all() and not duplicates(in_use, 8).any()
    part = stepped.layer(4)
    assert (part.totals[0] == stepped.totals[4]).all() and (part.in_use.phy2log[0] == stepped.in_use.phy2log[4]).all()
    assert as_map(part.in_use.phy2log.tolist(), part).num_slots == stepped.deployment.num_slots


@pytest.mark.parametrize(
    ("loads", "counts", "groups", "expected"),
    [
        ([5, 3, 4, 1], [1, 1, 1, 1], 1, False),
        ([5, 3, 3, 1], [1, 1, 1, 1], 1, True),
        ([6, 3, 4, 1], [1, 1, 1, 1], 1, True),  # a second replica of 6 is as large as 3
        ([15, 4, 5, 1], [1, 1, 1, 1], 1, False),
        ([15, 4, 5, 1], [2, 1, 1, 1], 1, True),  # a third one of 15 is as large as 5
        ([0, 3, 4, 1], [1, 1, 1, 1], 1, True),  # without load any count is as good
        ([7, 1, 5, 3], [1, 1, 1, 1], 2, True),  # groups of 8 each
        ([7, 2, 5, 3], [1, 1, 1, 1], 2, False),
    ],
)
def test_ties_are_seen(loads, counts, groups, expected):
    deployment = Deployment(4, 8, 4, num_nodes=groups, num_groups=groups)
    assert tied(np.array(loads), np.array(counts), deployment) is expected


def test_times_are_those_of_calls_in_turns():
    calls = []

    def original(case):
        calls.append("made")
        return lambda: calls.append("theirs")

    seconds = time_ratio(original, lambda case: calls.append("ours"), SMALL[0], rounds=3)
    assert calls == ["made", *["theirs", "ours"] * 4] and min(seconds) >= 0


def test_every_original_has_a_heuristic_of_ours_that_plans_as_it_is_asked():
    assert len({(original.key, original.release) for original in ORIGINALS}) == len(ORIGINALS)
    for original in ORIGINALS:
        record = HEURISTICS[original.method]
        assert original.policy in record.policies and (original.steps == 1 or record.history)


def test_a_package_that_cannot_be_had_is_named_with_the_reason(monkeypatch, capsys):
    def missing(release):
        raise Unavailable(f"{release} cannot be downloaded: no network")

    monkeypatch.setattr(peers_check, "unpacked", missing)
    assert peers_check.main([]) == 2
    said = capsys.readouterr().out
    assert "default (global): vllm==0.33.0 cannot be downloaded: no network" in said and said.count("no network") == len(
        ORIGINALS
    )
    assert peers_check.main(["--one", "0"]) == 2
    assert "no network" in capsys.readouterr().err


def test_a_case_is_planned_from_its_map_in_use_by_a_method_that_improves_one():
    case = SMALL[0]
    assert isinstance(case, Case)
    planned = our_plan("swift-balance")(case)
    expected = rebalance(case.loads, case.deployment, "swift-balance", previous=case.in_use)
    assert (planned.phy2log == expected.phy2log).all()
