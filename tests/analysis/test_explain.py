from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap import heuristics
from eplb_gap.analysis import page
from eplb_gap.analysis.explain import STEPS, explain, explain_map, mean_loads, model_excess, summary
from eplb_gap.analysis.figures.waterfall import COLOURS
from eplb_gap.analysis.verdict import points, recommended, verdict
from eplb_gap.analysis.windows import Windows
from eplb_gap.experiments.loads import traces
from eplb_gap.problem import Deployment, InputError, LoadTrace, Placement, PlacementError, verify


@pytest.fixture(scope="module", params=["recorded", "calibrated"])
def explained(request):
    windows = Windows.of(traces.trace(request.param))
    planned = heuristics.rebalance(windows.planning, traces.FLAGSHIP, "fast-lpt")
    return windows, planned, explain_map(windows, traces.FLAGSHIP, planned, "fast-lpt", "fast-lpt")


def test_the_steps_of_every_layer_sum_exactly_to_its_excess(explained):
    windows, planned, result = explained
    served = verify(planned, windows.serving, traces.FLAGSHIP)
    for layer, (makespan, mean) in enumerate(zip(served, mean_loads(windows.serving, traces.FLAGSHIP), strict=True)):
        steps = result.layer_steps(layer)
        assert list(steps) == [step.key for step in STEPS]
        assert sum(steps.values()) == makespan / mean - 1


def test_the_model_weighs_layers_by_their_mean_load(explained):
    windows, planned, result = explained
    weight = sum(result.mean)
    for key, value in result.steps().items():
        layers = range(len(result.mean))
        assert value == sum(result.layer_steps(layer)[key] * result.mean[layer] for layer in layers) / weight
    assert sum(result.steps().values()) == result.excess()
    assert result.excess() == model_excess(verify(planned, windows.serving, traces.FLAGSHIP), result.mean)


def test_optima_are_intervals_in_the_right_order(explained):
    _, _, result = explained
    levels = {level.key: level for level in result.levels}
    for layer, mean in enumerate(result.mean):
        assert mean <= levels["global"].lower[layer] <= levels["global"].upper[layer]
        assert levels["hierarchical"].lower[layer] <= levels["hierarchical"].upper[layer]
        assert levels["global"].lower[layer] <= levels["hierarchical"].upper[layer] * (1 + Fraction(1, 10**4))
        assert levels["hierarchical"].lower[layer] <= levels["replanned"].upper[layer]
        assert levels["reassigned"].upper[layer] <= levels["planned"].upper[layer]


def test_the_verdict_names_the_largest_gain_with_its_number(explained):
    _, _, result = explained
    lines = verdict(result).lines()
    best = max((a for a in result.alternatives if recommended(a)), key=lambda a: a.mean_gain)
    assert f"What would help most: {best.name}" in lines[3]
    assert f"{100 * float(best.mean_gain):+.2f} points" in lines[3]
    assert points(result.excess()) in lines[0]
    for alternative in result.alternatives:
        [line] = [line for line in lines if line.startswith(f"- {alternative.name}")]
        assert f"better in {alternative.wins} of 11" in line
        assert ("not recommended" in line) is not recommended(alternative)


def test_the_page_needs_no_network_and_shows_every_layer(explained):
    _, _, result = explained
    text = page.render(result, "<loads> & more", list(range(3, 3 + len(result.mean))))
    assert "&lt;loads&gt; &amp; more" in text
    assert not re.search(r'(src|href)="(?!#)', text)
    assert not re.search(r"url\((?!#)", text)
    assert "<script" not in text
    assert f"<td>{2 + len(result.mean)}</td>" in text
    identifiers = re.findall(r'id="([^"]+)"', text)
    assert len(set(identifiers)) == len(identifiers)
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(identifiers)


def test_a_layer_without_load_adds_nothing():
    loads = np.random.default_rng(0).integers(1, 90, (3, 2, 8))
    loads[:, 1] = 0
    deployment = Deployment(8, 12, 4)
    windows = Windows.of(LoadTrace(loads))
    result = explain_map(windows, deployment, heuristics.rebalance(windows.planning, deployment), "fast", "fast")
    assert set(result.layer_steps(1).values()) == {Fraction(0)}
    assert sum(result.steps().values()) == result.excess() == sum(result.layer_steps(0).values())


def test_a_perfect_map_leaves_nothing_to_win():
    deployment = Deployment(4, 4, 2)
    windows = Windows.of(LoadTrace(np.ones((2, 1, 4), np.int64)))
    result = explain_map(windows, deployment, Placement([[0, 1, 2, 3]], 4), "own map", "fast")
    assert verdict(result).lines()[0] == "Keep this map: nothing is left to win here."


def test_an_illegal_map_is_refused():
    windows = Windows.of(LoadTrace(np.ones((2, 1, 4), np.int64)))
    with pytest.raises(PlacementError, match="expert 1 has no replica"):
        explain_map(windows, Deployment(4, 4, 2), Placement([[0, 0, 2, 3]], 4), "own map", "fast")


def test_windows_are_the_last_two_unless_told():
    trace = LoadTrace(np.arange(1, 41).reshape(5, 2, 4))
    chosen = Windows.of(trace)
    assert (chosen.plan_window, chosen.serve_window) == (3, 4)
    assert (chosen.planning == trace.window(3)).all()
    chosen = Windows.of(trace, plan_window=1)
    assert (chosen.plan_window, chosen.serve_window, len(chosen.history)) == (1, 2, 2)
    chosen = Windows.of(trace, plan_window=-4, serve_window=-1)
    assert (chosen.plan_window, chosen.serve_window) == (1, 4)
    for bad, message in (
        ({"plan_window": 4}, r"serve-window is 5; the trace has windows 0 to 4"),
        ({"plan_window": 2, "serve_window": 2}, r"serve-window is 2; a window after plan-window 2"),
        ({"plan_window": 9}, r"plan-window is 9"),
    ):
        with pytest.raises(InputError, match=message):
            Windows.of(trace, **bad)
    with pytest.raises(InputError, match="the trace has 1 window"):
        Windows.of(LoadTrace(trace.loads[:1]))


TIGHT = Deployment(4, 8, 2, duplicates="forbidden")
"""Every GPU holds every expert: no slot more can be had."""
TIGHT_LOADS = [[[9, 5, 3, 1]], [[5, 9, 3, 1]], [[1, 2, 9, 4]]]


def test_an_alternative_deployment_that_cannot_be_is_left_out_and_said():
    # Duplicates forbidden, 8 slots on 2 GPUs, 4 experts: "more slots" would be 5 slots a GPU for 4 experts.
    result = explain(LoadTrace(TIGHT_LOADS), TIGHT)
    assert [left.name for left in result.left_out] == ["more slots"]
    assert "5 slots per GPU" in result.left_out[0].why
    assert "more slots" not in {alternative.name for alternative in result.alternatives}
    assert summary(result, [0])["left_out"][0]["name"] == "more slots"


def test_what_is_left_out_is_said_in_words_and_on_the_page():
    deployment = Deployment(3, 6, 2, duplicates="forbidden")
    result = explain(LoadTrace([[[9, 5, 3]], [[5, 9, 3]]]), deployment)
    assert verdict(result).lines()[0] == "Keep this map: nothing is left to win here."
    result = replace(result, levels=[*result.levels[:-1], replace(result.levels[-1], upper=[Fraction(12)], lower=[Fraction(12)])])
    said = verdict(result)
    assert said.items[-1].startswith("more slots: left out; ")
    assert said.lines()[-1] == f"- {said.items[-1]}"
    assert "<li>more slots: left out; " in page.render(result, "loads", [0])


def test_pairs_of_windows_on_which_the_methods_own_map_is_illegal_are_left_out():
    # DeepSeek's program puts two replicas of the one hot expert on a GPU of the first window, not on those behind it.
    deployment = Deployment(4, 6, 2, duplicates="forbidden")
    hot, flat = [[900, 1, 1, 1]], [[9, 8, 7, 6]]
    with pytest.raises(PlacementError):
        verify(heuristics.rebalance(np.array(hot), deployment, "initial_program"), np.array(hot), deployment)
    result = explain(LoadTrace([hot, flat, flat, flat]), deployment, "initial_program")
    assert [left.name for left in result.left_out] == ["window 0"]
    assert {len(alternative.gains) for alternative in result.alternatives} == {2}
    with pytest.raises(InputError, match="method is 'initial_program', whose map of the serving window is not legal"):
        explain(LoadTrace([flat, flat, hot]), deployment, "fast", "initial_program")


def test_dead_gpus_are_left_out_of_an_explanation():
    loads = np.random.default_rng(3).integers(1, 90, (3, 2, 6))
    whole, live = Deployment(6, 12, 4, active=[True, False, True, True]), Deployment(6, 9, 3)
    found, expected = explain(LoadTrace(loads), whole), explain(LoadTrace(loads), live)
    assert found.deployment == live
    assert found.excess() == expected.excess()
    assert found.steps() == expected.steps()
    with pytest.raises(InputError, match="the GPUs have 2 to 4 slots"):
        explain(LoadTrace(loads), Deployment(6, slots_per_gpu=[2, 3, 4]))


def test_a_step_lies_between_two_neighbours_of_the_chain():
    assert [step.start for step in STEPS[1:]] == [step.end for step in STEPS[:-1]]
    assert (STEPS[0].start, STEPS[-1].end) == ("mean", "planned")
    assert set(COLOURS) == {step.key for step in STEPS}
