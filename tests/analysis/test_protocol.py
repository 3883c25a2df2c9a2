from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest

from eplb_gap.analysis.protocol import CONSTANT_SPEED, Answer, combine, score, timed
from eplb_gap.experiments.loads.synthetic import calibrated_trace
from eplb_gap.experiments.loads.traces import FLAGSHIP
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.studies.defective_snake import defective_map
from eplb_gap.heuristics.registry import get_method
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.loads import LoadTrace
from eplb_gap.problem.placement import Placement

# Two experts on two GPUs of two slots each; window 0 makes expert 0 hot and window 1 expert 1.
TINY = Deployment(2, 4, 2)
TINY_LOADS = np.array([[[90, 10]], [[12, 60]], [[30, 30]]])


def fixed(phy2log, seconds=0.02):
    return lambda window: Answer(Placement([phy2log], TINY.num_experts), seconds)


def test_each_protocol_gives_the_values_worked_out_by_hand():
    # Experts 0 0 | 0 1: slots of window 1 hold 4 4 4 60, GPUs 8 64 (mean slot 18, mean GPU 36); of window 2: 10 10 10 30, 20 40.
    expert, gpu = (18 / 60 + 15 / 30) / 2, (36 / 64 + 30 / 40) / 2
    program = fixed([0, 0, 0, 1])
    seed = score("seed", TINY_LOADS, TINY, program)
    assert (seed.balancedness, seed.balancedness_expert, seed.balancedness_gpu) == pytest.approx((expert, expert, gpu))
    assert [(p.planned, p.served) for p in seed.pairs] == [(0, 1), (1, 2)]
    assert [p.balancedness_gpu for p in seed.pairs] == pytest.approx([36 / 64, 30 / 40])
    assert [(c.speed, c.score) for c in seed.combined] == [(1.0, pytest.approx((expert + 1) / 2))]
    assert CONSTANT_SPEED in seed.combined[0].rule

    on_gpus = score("gpu", TINY_LOADS, TINY, program)
    assert on_gpus.balancedness == pytest.approx(gpu)
    assert [c.speed for c in on_gpus.combined] == pytest.approx([1.0, 0.1])
    assert [c.score for c in on_gpus.combined] == pytest.approx([(gpu + 1.0) / 2, (gpu + 0.1) / 2])

    board = score("leaderboard", TINY_LOADS, TINY, program)
    assert board.combined[0].score == pytest.approx(90 * gpu + 5 * 0.1 - 0.4)


def test_the_seed_metric_cannot_see_the_packing_and_the_score_says_what_it_hides():
    together, apart = (score("seed", TINY_LOADS, TINY, fixed(slots)) for slots in ([0, 0, 1, 1], [0, 1, 0, 1]))
    assert together.balancedness == apart.balancedness
    assert together.combined == apart.combined
    assert together.balancedness_gpu < apart.balancedness_gpu == 1.0


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0005, 45 + 5 * 2),  # speed is capped at 2
        (0.004, 45 + 5 * 0.5),
        (0.010, 45 + 5 * 0.2),  # not beyond the limit yet: no penalty
        (0.1, 45 + 5 * 0.02 - 2),
        (3.0, 45 + 5 * 0.002 / 3 - 20),  # the penalty is capped
    ],
)
def test_the_leaderboard_rates_speed_piecewise(seconds, expected):
    assert combine("leaderboard", 0.5, seconds)[0].score == pytest.approx(expected)


def test_the_gpu_protocol_does_not_cap_speed():
    assert [c.speed for c in combine("gpu", 0.5, 1e-5)] == pytest.approx([2000.0, 200.0])


def test_the_time_is_the_median_over_the_windows():
    seconds = iter([5.0, 0.1, 0.3])
    loads = np.concatenate([TINY_LOADS, TINY_LOADS[:1]])
    result = score("gpu", loads, TINY, lambda window: Answer(Placement([[0, 0, 1, 1]], 2), next(seconds)))
    assert result.seconds == 0.3


def test_a_program_gets_the_past_only_and_cannot_write_into_the_trace():
    loads, seen = np.arange(1, 17).reshape(8, 1, 2), []

    def program(window):
        seen.append(window.tolist())
        window[:] = 0
        return Answer(Placement([[0, 0, 1, 1]], 2), 1.0)

    assert len(score("gpu", loads, TINY, program).pairs) == 7
    assert len(score("seed", loads, TINY, program).pairs) == 5
    assert seen == np.arange(1, 17).reshape(8, 1, 2).tolist()[:7] + np.arange(1, 17).reshape(8, 1, 2).tolist()[:5]


@pytest.mark.parametrize(
    ("slots", "reason"),
    [
        ([0, 0, 0, 0], "expert 1 has no replica"),
        ([0, 1, 0, 2], "expert 2 does not exist"),
        ([0, 1, 0, 1, 1], "placement has shape"),
    ],
)
def test_one_illegal_map_refuses_the_score(slots, reason):
    answers = iter([[0, 0, 1, 1], slots])
    result = score("gpu", TINY_LOADS, TINY, lambda window: fixed(next(answers))(window))
    assert result.status.startswith("illegal: map planned on window 1: ")
    assert reason in result.status
    assert not result.legal
    assert (result.pairs, result.balancedness, result.balancedness_gpu, result.combined) == ((), None, None, ())


def test_the_defective_snake_that_was_published_with_a_score_gets_none():
    def program(window):
        return Answer(Placement.from_tensors(*defective_map(window, FLAGSHIP)), 1.0)

    assert "-1 inside its valid prefix" in score("seed", calibrated_trace(0).loads, FLAGSHIP, program).status


def test_a_map_that_ignores_the_nodes_is_legal_under_the_global_policy_only():
    def program(window):
        return Answer(get_method("eplb_snake_pipeline")(window, FLAGSHIP.as_global()), 1.0)

    loads = calibrated_trace(0).loads[:2]
    assert "keeps a group on one node" in score("seed", loads, FLAGSHIP, program).status
    assert score("seed", loads, FLAGSHIP.as_global(), program).legal


@pytest.mark.parametrize("method", ["initial_program", "eplb_snake_pipeline"])
def test_the_seed_protocol_on_the_calibrated_trace_gives_the_published_rows(method):
    stored = {
        row["instance"]: row["serving"]
        for row in rows.read(rows.RESULTS / "protocol.ndjson")
        if row["method"] == method and row["instance"].startswith("calibrated-")
    }
    published = [stored[f"calibrated-{window:02d}"] for window in range(5)]
    result = score("seed", calibrated_trace(0).loads, FLAGSHIP, timed(get_method(method), FLAGSHIP))
    assert [p.balancedness_expert for p in result.pairs] == [row["expert"] for row in published]
    assert [p.balancedness_gpu for p in result.pairs] == [row["gpu"] for row in published]
    assert result.balancedness == fmean(row["expert"] for row in published)
    assert result.seconds > 0


@pytest.mark.parametrize(
    ("protocol", "loads", "message"),
    [
        ("exact", TINY_LOADS, "protocol is 'exact'; the protocols are seed, gpu, leaderboard"),
        ("seed", TINY_LOADS[:1], "trace_loads has 1 window"),
        ("seed", TINY_LOADS[0], "trace_loads has shape"),
        ("seed", np.ones((3, 1, 4), dtype=int), "trace_loads has 4 experts; the deployment has 2"),
    ],
)
def test_bad_input_is_named(protocol, loads, message):
    with pytest.raises(InputError, match=message):
        score(protocol, loads, TINY, fixed([0, 0, 1, 1]))


def test_a_heuristic_is_scored_by_its_name_and_a_trace_is_taken_as_it_is():
    found = score("seed", LoadTrace([[[6, 2]], [[2, 6]]]), Deployment(2, 3, 3), "initial_program")
    assert found.balancedness == pytest.approx(8 / 18)


def test_unequal_gpus_are_refused_and_dead_ones_left_out():
    loads = [[[6, 2]], [[2, 6]]]
    with pytest.raises(InputError, match="the GPUs have 1 to 2 slots; a published protocol needs equally many"):
        score("gpu", loads, Deployment(2, slots_per_gpu=[1, 2]), "fast")
    dead = score("gpu", loads, Deployment(2, 6, 3, active=[True, False, True]), "fast")
    alive = score("gpu", loads, Deployment(2, 4, 2), "fast")
    assert dead.legal
    assert dead.balancedness == alive.balancedness
