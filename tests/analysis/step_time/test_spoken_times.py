"""What explanations, numbers of slots and replays say in time, by hand on small loads."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap import Controller, Deployment, LoadTrace, Placement, RoutingTrace, capacity, evaluate, explain, rebalance, replay
from eplb_gap.analysis import page
from eplb_gap.analysis.alternatives import Alternative
from eplb_gap.analysis.explain import STEPS
from eplb_gap.analysis.figures.time_against_imbalance import Point, curve
from eplb_gap.analysis.html_page import svg
from eplb_gap.analysis.network.routed import in_windows
from eplb_gap.analysis.network.served import planned_and_served
from eplb_gap.analysis.replay.costs import Costs
from eplb_gap.analysis.step_time.evaluated import times_of
from eplb_gap.analysis.step_time.explained import alternative_lines, chain_times, sentences, step_rows
from eplb_gap.analysis.step_time.hinge import Hinge
from eplb_gap.analysis.step_time.predict import StepTime, imbalance, map_time, step_time
from eplb_gap.analysis.step_time.profile import Network, Profile, Tiles, read_profile
from eplb_gap.analysis.step_time.replayed import replay_times
from eplb_gap.analysis.step_time.section import section
from eplb_gap.analysis.step_time.sized import slot_times
from eplb_gap.analysis.step_time.timed import Timed, as_dict, cells, check_told, named, notes, part_lines
from eplb_gap.analysis.step_time.words import change, cited, knee
from eplb_gap.analysis.windows import Windows
from eplb_gap.problem import InputError

HINGE = Profile("small <b>", "by hand, $1$ & more", "nothing", "a step", Hinge(2.0, 0.5, 1.2))
ABOVE = replace(HINGE, hinge=Hinge(2.0, 0.5, 5.0))
RELATIVE = replace(HINGE, hinge=Hinge(None, 0.5, 1.2))
SHAPE = Deployment(4, 6, 2)
TRACE = LoadTrace([[[6, 2, 1, 1], [10, 10, 10, 10]], [[2, 6, 1, 1], [10, 10, 10, 10]]])
MAP = Placement([[0, 2, 3, 0, 1, 1]] * 2, 4)
"""Serves 3 and 7 of a mean of 5 in the first layer, 25 and 15 of 20 in the second."""


@pytest.fixture(scope="module")
def explained():
    return explain(TRACE, SHAPE, MAP)


def test_the_imbalance_is_the_mean_of_the_layers_and_not_of_their_loads(explained):
    times = chain_times(HINGE, explained)
    assert float(explained.excess()) == pytest.approx(32 / 25 - 1)
    assert times.planned.time.imbalance == pytest.approx((7 / 5 + 25 / 20) / 2)
    assert times.planned.time.imbalance == pytest.approx(imbalance(MAP, TRACE.window(1), SHAPE))
    assert times.planned.time.seconds == pytest.approx(2.0 * (1 + 0.5 * (1.325 - 1.2)))
    assert times.planned.gap == pytest.approx(0.5 * 0.125)  # 5 and 20 can be reached in both layers


def test_steps_are_differences_of_neighbouring_times_and_add_up(explained):
    times = chain_times(HINGE, explained)
    levels = [times.levels[key] for key in ("mean", *(step.end for step in STEPS))]
    worth = [0.5 * (max(b.imbalance, 1.2) - max(a.imbalance, 1.2)) for a, b in itertools.pairwise(levels)]
    assert [times.worth(step) for step in STEPS] == pytest.approx(worth)
    assert sum(worth) == pytest.approx(times.planned.time.relative - 1)
    told = times.as_dict()
    assert sum(told["steps"].values()) == pytest.approx(told["seconds"] - 2.0)
    assert (told["profile"], told["source"], told["lower"], told["dead_zone"]) == (HINGE.name, HINGE.source, 2.0, False)
    assert "; no map goes below 2.000 s (gap 6.25 %)." in sentences(times)[0]


def test_alternatives_are_timed_on_the_maps_that_they_plan():
    trace, shape = LoadTrace(np.random.default_rng(0).integers(1, 100, (3, 2, 8))), Deployment(8, 8, 4)
    times = chain_times(HINGE, explain(trace, shape))
    saved = {one.name: one for one in times.savings}
    expected = []
    for pair in range(2):
        serving = trace.window(pair + 1)
        own, fresh = (imbalance(rebalance(loads, shape), serving, shape) for loads in (trace.window(pair), serving))
        expected.append(0.5 * (max(own, 1.2) - max(fresh, 1.2)))
    assert saved["fresher loads"].relative == pytest.approx(sum(expected) / 2)
    assert min(expected) > 0.05  # so that the test is of something
    assert times.savings == sorted(times.savings, key=lambda one: -one.relative)
    lines = {line.partition(":")[0]: line for line in alternative_lines(times)}
    fresh = lines["fresher loads (a limit, which nobody can plan to)"]
    assert re.search(r": -0\.[0-9]+ s, mean over 2 pairs, faster in 2 of 2$", fresh)
    told = {one["name"]: one for one in times.as_dict()["alternatives"]}
    assert {name: one["is_limit"] for name, one in told.items()} == {name: name == "fresher loads" for name in told}
    assert not told["fresher loads"]["recommended"]


def test_an_alternative_is_recommended_in_time_only_if_it_is_in_points_and_faster_in_most_pairs(explained):
    def said(gains, imbalances, scatter=None):
        one = Alternative("more slots", "", Fraction(0), [Fraction(gain) for gain in gains], imbalances=imbalances)
        times = chain_times(replace(HINGE, scatter=scatter), replace(explained, alternatives=[one]))
        [told] = times.as_dict()["alternatives"]
        return *alternative_lines(times), (told["wins"], told["recommended"])

    noise = [(2.0, 1.4), (1.5, 1.6), (1.5, 1.6)]
    better = [(2.0, 1.4), (1.5, 1.6), (1.7, 1.6)]
    for gains in ([6, -1, -1], [1, 1, 1]):
        assert said(gains, noise) == ("more slots: -0.133 s, mean over 3 pairs, faster in 1 of 3, not recommended", (1, False))
    assert said([6, -1, -1], better) == ("more slots: -0.200 s, mean over 3 pairs, faster in 2 of 3, not recommended", (2, False))
    assert said([6, -1, 1], better) == ("more slots: -0.200 s, mean over 3 pairs, faster in 2 of 3", (2, True))
    slower = [(1.4, 3.0), (1.5, 1.4), (1.5, 1.4)]
    assert said([6, -1, 1], slower)[0].startswith("more slots: +0.467 s, mean over 3 pairs, faster in 2 of 3, not recommended")
    assert said([6, -1, 1], better, 0.09)[1] == (2, True)  # 0.1 of the balanced time
    line, judged = said([6, -1, 1], better, 0.11)
    assert "-0.200 s (within the timings' scatter), mean" in line and line.endswith("not recommended") and judged == (2, False)
    assert said([1], [(1.5, 1.4)]) == ("more slots: -0.100 s, on one pair of windows, faster in 1 of 1", (1, True))


def test_below_a_knee_above_everything_nothing_is_worth_anything(explained):
    times = chain_times(ABOVE, explained)
    assert all(times.worth_nothing(step) and times.worth(step) == 0 for step in STEPS)
    assert {row[-1] for row in step_rows(times)[1:]} == {"nothing: dead zone"}
    assert sentences(times) == [
        "Predicted for window 1: 2.000 s at an imbalance of 1.3250, inside the dead zone: a better balance is worth nothing."
    ]
    assert all(line.endswith(": inside the dead zone: worth nothing") for line in alternative_lines(times))
    assert len(alternative_lines(times)) == len(explained.alternatives) > 2
    assert (times.planned.gap, times.as_dict()["dead_zone"]) == (0.0, True)


def test_without_seconds_of_a_balanced_step_times_are_in_percent_of_it(explained):
    times = chain_times(RELATIVE, explained)
    assert "106.25 %" in sentences(times)[0]
    said = [*sentences(times), *alternative_lines(times), *(cell for row in step_rows(times) for cell in row)]
    assert not re.search(r"[0-9] (s|ms|us)\b", " ".join(said))
    assert (times.as_dict()["seconds"], times.as_dict()["lower"]) == (None, 1.0)


def test_the_page_has_the_times_escaped_and_loads_nothing(explained, tmp_path):
    part = section(chain_times(HINGE, explained), ["a `note`"])
    text = page.render(explained, "loads", [0, 1], [part])
    assert text.index("What it is worth in time") < text.index("Layer by layer")
    assert "small &lt;b&gt;: by hand, $1$ &amp; more" in text and "<b>" not in text
    assert text.count("<svg") == 3
    assert not re.search(r"<script|<link|@import|src=|https?://(?!www\.w3\.org|purl|matplotlib|creativecommons)", text)


def test_the_figure_draws_timed_maps_and_hinges_without_seconds_or_slope():
    assert svg(curve(HINGE, [Point(1.1, "flat", 2.01), Point(1.5, time=2.3), Point(1.3)]), "timed").count("<svg") == 1
    svg(curve(replace(RELATIVE, hinge=Hinge(None, 0.0, 1.0))), "x")
    with pytest.raises(InputError, match="no seconds"):
        curve(RELATIVE, [Point(1.1, time=2.01)])
    with pytest.raises(InputError, match="no hinge"):
        curve(replace(HINGE, hinge=None, tiles=Tiles(0, 1e-3, 8)))


def test_evaluated_maps_have_experts_and_network_of_one_step():
    routing = RoutingTrace([[[0, 1]], [[0, 1]], [[0, 2]], [[2, 3]]] * 2, 4, step=[0] * 4 + [1] * 4)
    routed = in_windows(routing)
    shape, placed = Deployment(4, 4, 4, num_nodes=2), Placement([[0, 1, 2, 3]], 4)
    counted = planned_and_served(routed, shape, 0, 1, [("map", placed)], "node-dedup", "local-first")
    network = Network(0.0, 100.0, "node-dedup", 2.0, 1e3, 1e6)
    profile = replace(HINGE, tiles=Tiles(0, 1e-3, 2), network=network)
    result, windows = evaluate(routed.trace, shape, placed), Windows.of(routed.trace)
    both = times_of(profile, result, placed, windows, shape, 1, counted.maps[0])
    assert both.planning.time.expert_seconds == both.serving.time.expert_seconds == pytest.approx(2e-3)  # GPU 0 has three rows
    layers = [layer.counted for layer in counted.maps[0].served.layers]
    assert both.serving.time.network_seconds == map_time(profile, placed, windows.serving, shape, layers).network_seconds
    assert both.serving.least.network_seconds <= both.serving.time.network_seconds
    experts, sent = part_lines(replace(both.serving, time=replace(both.serving.time, profile=replace(profile, hinge=None))))
    assert experts.startswith("experts 2.000 ms a step with even shares over replicas, no map that shares evenly below 2.000 ms")
    assert sent.startswith("network ") and "for the window's 4 tokens as one dispatch a layer, no map below" in sent
    told = as_dict(both.serving)
    assert (told["experts_shares"], told["network_tokens"]) == ("even shares over replicas", 4)
    summed = times_of(profile, result, placed, windows, shape, 100, counted.maps[0]).serving
    assert (summed.time.expert_seconds, summed.time.network_seconds) == (None, both.serving.time.network_seconds)
    assert "a step" not in " ".join(part_lines(summed)) and "experts_shares" not in as_dict(summed)
    traffic = counted.maps[0].served
    said = notes(replace(profile, gpus=8, nodes=1), 1, 4, 2, traffic)
    assert said[0] == "Profile measured on 8 GPUs in 1 node; deployment has 4 GPUs in 2 nodes."
    assert any(line.startswith("Experts: even shares over replicas") for line in said)
    assert any("of all tokens of the window as one dispatch" in line for line in said)
    for same in (profile, replace(profile, gpus=4), replace(profile, gpus=4, nodes=2)):
        assert "measured on" not in " ".join(notes(same, 1, 4, 2, traffic))
    [told] = times_of(replace(HINGE, gpus=8), result, placed, windows, shape, 1).as_dict()["notes"]
    assert told == "Profile measured on 8 GPUs; deployment has 4 GPUs in 2 nodes."
    assert both.as_dict()["notes"] == []


def test_tiles_say_which_multiplications_were_timed():
    profile = read_profile("deepgemm-fp8-sm90")
    step = StepTime(profile, 1.0, expert_seconds=0.002)
    [line] = part_lines(Timed(step, step))
    assert line.startswith("experts (gate and up projection of the experts) 2.000 ms a step")
    assert cited(profile).endswith("; seconds of gate and up projection of the experts")
    assert named(profile)["timed"] == "gate and up projection of the experts"


def test_small_differences_are_within_the_scatter_and_imbalances_at_the_knees_edge():
    profile = read_profile("qwen2-57b-ep8-h20")
    edge, near, far = (Timed(step_time(profile, r), step_time(profile, 1.0)) for r in (1.08, 1.125, 1.2))
    assert cells(edge)[3:] == ["0.00 %", "at the knee's edge"]
    assert cells(near)[3:] == ["0.74 %, within scatter", "outside"]
    assert cells(far)[3:] == ["2.88 %", "outside"]
    assert as_dict(edge)["at_knee"] and not as_dict(far)["at_knee"]
    assert change(profile, -0.009) == "-0.75 s (within the timings' scatter)"
    assert change(profile, 0.0) == "+0.00 s" and change(profile, 0.01) == "+0.83 s"
    assert "(95 % interval 1.060 to 1.121)" in knee(profile) and "scatter by 0.91 %" in knee(profile)
    assert change(RELATIVE, 0.001) == "+0.10 %" and "scatter" not in knee(RELATIVE)
    assert [named(one)["unit"] for one in (profile, RELATIVE)] == ["seconds", "part of the balanced step"]


@pytest.mark.parametrize(
    ("parts", "steps", "routed", "said"),
    [
        ({"network": Network(0.0, 1.0, "rank-dedup", nvlink_bytes_per_second=1.0)}, 1, False, "--routing is missing"),
        ({"tiles": Tiles(0, 1e-3, 8)}, 100, True, "loads of single steps are needed"),
        ({"tiles": Tiles(0, 1e-3, 8)}, 1, False, None),
    ],
)
def test_a_profile_that_can_tell_nothing_is_refused(parts, steps, routed, said):
    profile = replace(HINGE, hinge=None, **parts)
    if said is None:
        check_told(profile, steps, routed)
        return
    with pytest.raises(InputError, match=said):
        check_told(profile, steps, routed)


def test_slots_buy_nothing_once_inside_the_dead_zone():
    found = capacity(LoadTrace([[[6, 1, 1, 1]], [[6, 1, 1, 1]]]), Deployment(4, 4, 2), target=0.9)
    times = slot_times(HINGE, found)
    assert [step.planning.imbalance for step in times.steps] == pytest.approx([7 / 4.5, 1.0, 1.0])
    assert times.enough.slots == 6 and times.fastest is None  # of one pair of windows none can be named
    lines = times.lines()
    assert "Planning: from 6 slots on, inside the dead zone, more buy nothing; fewer are proven not to be." in lines
    assert "Serving: 6 slots are inside the dead zone in the one pair of windows; more buy nothing." in lines
    row = times.as_dict()["slots"][0]
    assert (row["seconds"], row["lower"]) == (pytest.approx(2.0 * (1 + 0.5 * (7 / 4.5 - 1.2))),) * 2
    assert slot_times(ABOVE, found).enough.slots == 4


def test_slots_are_called_fastest_only_where_the_pairs_of_windows_show_it():
    found = capacity(LoadTrace([[[6, 1, 1, 1]], [[6, 1, 1, 1]]]), Deployment(4, 4, 2), target=0.9)

    def sized(*serving):
        served = [replace(one, serving=list(pairs)) for one, pairs in zip(found.imbalances, serving, strict=True)]
        return slot_times(HINGE, replace(found, imbalances=served))

    rng = np.random.default_rng(11)
    slow, fast = 2.0 + 0.1 * rng.standard_normal((2, 10))
    noise = sized(slow, fast, fast[::-1])
    assert noise.fastest is None and [step.slots for step in noise.alike] == [4, 6, 8]
    assert noise.lines()[-1].startswith(
        "Serving: no number of slots is known to be fastest, mean over 10 pairs of windows: those of 4,"
    )
    assert noise.as_dict()["fastest_served"] is None and noise.as_dict()["not_slower_served"] == [4, 6, 8]
    shared = sized(
        slow, slow - 0.05, slow - 0.04 + 0.005 * rng.standard_normal(10)
    )  # smaller than the scatter, but in every pair
    assert shared.fastest.slots == 6 and "6 slots serve fastest" in shared.lines()[-1]
    mean, low, high = shared.as_dict()["slots"][2]["serving_against_fewest"]
    assert low < mean < high < 0 and mean == pytest.approx(-0.04, abs=0.005)
    assert "| against 4 slots, 95 % interval |" in "\n".join(shared.lines())
    single = sized([2.0], [1.9], [1.8])
    assert single.fastest is None and single.lines()[-1].endswith("no interval follows; no fastest is named.")


def test_a_replay_loses_time_on_every_step_by_itself_and_to_moves():
    uneven, even, empty = [9, 9, 1, 1], [9, 1, 1, 9], [0, 0, 0, 0]
    steps = LoadTrace([[uneven, even], [even, even], [uneven, empty], [empty, empty]])
    result = replay(steps, Deployment(4, 4, 2), [Controller("none")], costs=Costs(1.0, 1.0))
    assert result.runs[0].imbalance.tolist() == pytest.approx([1.4, 1.0, 1.8, 1.0])
    [lost] = replay_times(HINGE, result).runs
    assert (lost.relative, lost.inside, lost.seconds) == pytest.approx((0.5 * (0.2 + 0.6) / 4, 0.5, 0.8))
    moved = replay_times(HINGE, replace(result, runs=[_Waiting(result.runs[0], 1.0)]))
    assert moved.runs[0].total == pytest.approx(0.1 + 1.0 / 8.0)
    assert "1.8 |" in moved.lines()[-1] and "| seconds lost |" in moved.lines()[-1] and "50 % of steps" in moved.lines()[-1]
    assert "Time lost: percent of the time at perfect balance, mean over 4 steps." in moved.lines()
    assert "+10.00 % (within the timings' scatter)" in replay_times(replace(HINGE, scatter=0.11), result).lines()[-1]
    whole = replay_times(replace(HINGE, timed="16 requests"), result)
    assert (whole.runs[0].seconds, whole.runs[0].moves) == (None, None)
    assert any(line.startswith("Waiting for moves is not among it") for line in whole.lines())
    assert not np.any([run.relative for run in replay_times(ABOVE, result).runs])


def test_sums_of_steps_are_called_windows_and_what_they_lose_a_lower_bound():
    steps = np.random.default_rng(5).multinomial(60, np.array([4, 2, 1, 1]) / 8, (6, 2))
    lost, shape = [], Deployment(4, 4, 2)
    for trace in (LoadTrace(steps), LoadTrace(steps.reshape(2, 3, 2, 4).sum(axis=1), provenance={"window_steps": 3})):
        times = replay_times(HINGE, replay(trace, shape, [Controller("none")]))
        lost.append((times.runs[0].relative, times.runs[0].seconds))
    assert all(summed < single for single, summed in zip(*lost, strict=True))
    text = "\n".join(times.lines())
    assert "mean over 2 windows of 3 steps each; a lower bound on what the steps lose" in text
    assert re.search(r"\| [0-9]+ % of windows *\|", text) and "% of steps" not in text and "| seconds lost, at least |" in text
    assert {"windows": 2, "steps": 6, "lower_bound": True}.items() <= times.as_dict().items()


class _Waiting:
    """A run that waited."""

    def __init__(self, run, seconds):
        self.controller, self.imbalance, self.first, self.last, self.waiting = (
            run.controller, run.imbalance, run.first, run.last, seconds,
        )  # fmt: skip
