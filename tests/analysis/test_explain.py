from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap import heuristics
from eplb_gap.analysis import page
from eplb_gap.analysis.explain import STEPS, explain, mean_loads, model_excess
from eplb_gap.analysis.verdict import points, recommended, verdict
from eplb_gap.analysis.windows import split
from eplb_gap.experiments.loads import traces
from eplb_gap.problem import Deployment, InputError, LoadTrace, Placement, PlacementError, verify


@pytest.fixture(scope="module", params=["recorded", "calibrated"])
def explained(request):
    windows = split(traces.trace(request.param))
    planned = heuristics.rebalance(windows.planning, traces.FLAGSHIP, "fast-lpt")
    return windows, planned, explain(windows, traces.FLAGSHIP, planned, "fast-lpt", "fast-lpt")


def test_the_steps_of_every_layer_sum_exactly_to_its_excess(explained):
    windows, planned, result = explained
    served = verify(planned, windows.serving, traces.FLAGSHIP)
    for layer, (makespan, mean) in enumerate(zip(served, mean_loads(windows.serving, traces.FLAGSHIP), strict=True)):
        steps = result.layer_steps(layer)
        assert list(steps) == list(STEPS)
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
    lines = verdict(result)
    best = max((a for a in result.alternatives if recommended(a)), key=lambda a: a.mean_gain)
    assert f"What would help most: {best.name}" in lines[2]
    assert f"{100 * float(best.mean_gain):+.2f} points" in lines[2]
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
    windows = split(LoadTrace(loads))
    result = explain(windows, deployment, heuristics.rebalance(windows.planning, deployment), "fast", "fast")
    assert set(result.layer_steps(1).values()) == {Fraction(0)}
    assert sum(result.steps().values()) == result.excess() == sum(result.layer_steps(0).values())


def test_a_perfect_map_leaves_nothing_to_win():
    deployment = Deployment(4, 4, 2)
    windows = split(LoadTrace(np.ones((2, 1, 4), np.int64)))
    result = explain(windows, deployment, Placement([[0, 1, 2, 3]], 4), "own map", "fast")
    assert verdict(result)[-1] == "Nothing is left to win here."


def test_an_illegal_map_is_refused():
    windows = split(LoadTrace(np.ones((2, 1, 4), np.int64)))
    with pytest.raises(PlacementError, match="expert 1 has no replica"):
        explain(windows, Deployment(4, 4, 2), Placement([[0, 0, 2, 3]], 4), "own map", "fast")


def test_windows_are_the_last_two_unless_told():
    trace = LoadTrace(np.arange(1, 41).reshape(5, 2, 4))
    chosen = split(trace)
    assert (chosen.plan_window, chosen.serve_window) == (3, 4)
    assert (chosen.planning == trace.window(3)).all()
    chosen = split(trace, plan_window=1)
    assert (chosen.plan_window, chosen.serve_window, len(chosen.history)) == (1, 2, 2)
    chosen = split(trace, plan_window=-4, serve_window=-1)
    assert (chosen.plan_window, chosen.serve_window) == (1, 4)
    for bad, message in (
        ({"plan_window": 4}, r"serve-window is 5; the trace has windows 0 to 4"),
        ({"plan_window": 2, "serve_window": 2}, r"serve-window is 2; a window after plan-window 2"),
        ({"plan_window": 9}, r"plan-window is 9"),
    ):
        with pytest.raises(InputError, match=message):
            split(trace, **bad)
    with pytest.raises(InputError, match="the trace has 1 window"):
        split(LoadTrace(trace.loads[:1]))
