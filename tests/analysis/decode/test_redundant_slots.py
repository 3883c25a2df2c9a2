"""Whether redundant slots hurt decode, on routing made so that the answer is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from eplb_gap.analysis.decode import by_slots
from eplb_gap.analysis.decode.activation import CHOICES, Activation, expert_seconds
from eplb_gap.analysis.decode.batches import decode_steps
from eplb_gap.analysis.decode.planning import plan_for_steps
from eplb_gap.analysis.decode.redundancy import Redundancy, as_dict, lines, redundancy, report
from eplb_gap.analysis.decode.wording import READS_ALONE, share
from eplb_gap.analysis.step_time.profile import Profile, Tiles
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace


def every_expert(tokens: int, experts: int) -> RoutingTrace:
    """Return one step in which every expert gets all tokens: each replica is read under hashed and even choice."""
    return RoutingTrace([[list(range(experts))]] * tokens, experts, step=[0] * tokens)


def test_two_replicas_of_everything_double_what_is_read_and_the_best_choice_undoes_it() -> None:
    routing, deployment = every_expert(8, 4), Deployment(4, 8, 4)
    both = Placement([[0, 1, 1, 2, 2, 3, 3, 0]], 4)
    found = redundancy(routing, routing.loads()[None], both, deployment, batch=None, planner="fast")
    assert (found.plain_slots, found.own.mean("hashed"), found.own.mean("even"), found.own.mean("best")) == (4, 2.0, 2.0, 1.0)
    assert (found.cost("hashed"), found.cost("best"), found.recovered) == (1.0, 0.0, 1.0)
    said = lines(found)
    assert said[0].startswith(
        "Redundant slots hurt decode under hashed choice: the fullest GPU reads 2.00 experts a step, +100.0 %"
    )
    assert said[0].endswith("against 1.00 with 4 slots, more in 100 % of steps and layers, fewer in 0 %.")
    assert said[2:5] == [
        "fast planned both maps, that of 8 slots and that of 4 slots.",
        "The best choice reads 1.00, -50.0 % against map under hashed choice, +0.0 % against 1.00 with 4 slots.",
        READS_ALONE,
    ]
    assert all(line in report(found) for line in said)
    data = json.loads(json.dumps(as_dict(found)))
    assert data["own"]["read"]["hashed"] == {"mean": 2.0, "quantiles": {"0.1": 2, "0.5": 2, "0.9": 2, "1": 2}, "by_layer": [2.0]}
    assert data["more_than_plain"] == {"hashed": 1.0, "even": 1.0, "best": 0.0}
    assert data["share_worse"] == {"hashed": 1.0, "even": 1.0, "best": 0.0}
    assert (data["planner"], data["plain_planner"], data["same_planner"]) == ("fast", "fast", True)


@pytest.mark.parametrize(("planner", "of"), [(None, "comes from elsewhere"), ("sglang-vec", "is planned by sglang-vec")])
def test_what_two_planners_differ_by_is_not_put_down_to_slots(planner: str | None, of: str) -> None:
    routing, deployment = every_expert(8, 4), Deployment(4, 8, 4)
    both = Placement([[0, 1, 1, 2, 2, 3, 3, 0]], 4)
    found = redundancy(routing, routing.loads()[None], both, deployment, name="map.json", batch=None, planner=planner)
    text = report(found)
    assert f"fast planned the map of 4 slots, and map.json {of}: slots and planners differ" in text
    assert "Under hashed choice map.json reads 2.00 experts a step, +100.0 % against 1.00 with 4 slots: more in 100 %" in text
    assert "Redundant slots" not in text
    assert "| 4 slots, fast |" in text
    data = as_dict(found)
    assert (data["planner"], data["plain_planner"], data["same_planner"]) == (planner, "fast", False)


def reads(steps: list[int]) -> Activation:
    """Return counts of one layer, the same under every choice."""
    row = np.array([steps])
    return Activation(dict.fromkeys(CHOICES, row), dict.fromkeys(CHOICES, row), row, row, 2, 0, 1)


@pytest.mark.parametrize(
    ("own", "verb"),
    [
        ([7, 7, 7, 5], "hurt decode"),
        ([9, 6, 6, 6], "neither clearly hurt nor help decode"),  # more in the mean, by one step of four
        ([7, 7, 6, 6], "neither clearly hurt nor help decode"),  # half is not most
        ([7, 7, 7, 2], "neither clearly hurt nor help decode"),  # in most steps, and not in the mean
        ([5, 5, 5, 6], "help decode"),
        ([5, 5, 5, 10], "neither clearly hurt nor help decode"),
        ([6, 6, 6, 6], "change nothing in decode"),
    ],
)
def test_slots_hurt_only_where_they_do_in_most_steps_and_in_the_mean(own: list[int], verb: str) -> None:
    found = Redundancy("map", 4, 8, 4, None, reads(own), reads([6, 6, 6, 6]), "fast", "fast")
    assert lines(found)[0].startswith(f"Redundant slots {verb} ")


def test_batches_are_said_to_be_drawn_from_longer_passes_and_only_then() -> None:
    routing, deployment = every_expert(8, 4), Deployment(4, 8, 4)
    both = Placement([[0, 1, 1, 2, 2, 3, 3, 0]], 4)
    drawn = "The recorded passes have up to 8 tokens: a batch is no recorded step but draws 3 tokens at even distances out of one"
    for trace, batch, said in (
        (routing, 3, drawn),
        (replace(routing, step=None), 3, "No passes are recorded: a batch draws its 3 tokens at even distances out of all"),
        (routing, 8, None),
        (routing, None, None),
    ):
        found = redundancy(trace, trace.loads()[None], both, deployment, batch=batch)
        sized = by_slots.activated_by_slots(trace, trace.loads()[None], deployment, batch=batch)
        for text in (report(found), by_slots.report(sized, batch)):
            assert ("at even distances" in text) == (said is not None)
            assert said is None or said in text
        longest = None if trace.step is None else 8
        assert as_dict(found)["longest_recorded_pass"] == by_slots.as_dict(sized, batch)["longest_recorded_pass"] == longest


def test_a_map_planned_on_steps_separates_experts_that_are_active_together() -> None:
    pairs = [[[0, 1]], [[2, 3]], [[4, 5]]] * 4
    routing, deployment = RoutingTrace(pairs, 6, step=range(12)), Deployment(6, 8, 2)
    together = Placement([[0, 1, 2, 2, 3, 4, 5, 4]], 6)
    found = redundancy(routing, routing.loads()[None], together, deployment, batch=None, past=routing)
    assert found.planned is not None
    assert found.planned.mean("best") == 1.0 < found.own.mean("best")
    said = "With a map planned on steps of the planning window the best choice reads 1.00, -40.0 % against map under best choice"
    assert said in report(found)
    assert as_dict(found)["planned"]["read"]["best"]["mean"] == 1.0
    with pytest.raises(InputError, match="routing has 6 experts; the deployment has 5"):
        plan_for_steps(routing, Deployment(5, 6, 2), None)


def test_no_redundant_slots_are_said_to_be_none() -> None:
    routing, deployment = every_expert(3, 4), Deployment(4, 4, 2)
    found = redundancy(routing, routing.loads()[None], Placement([[0, 1, 2, 3]], 4), deployment, batch=2)
    assert found.own.mean("hashed") == found.own.mean("best") == 2.0
    assert "There are no redundant slots" in report(found)
    assert "1 tokens that fill no batch" in report(found)


def test_the_fewest_slots_may_leave_some_to_choose_from() -> None:
    routing, deployment = every_expert(8, 3), Deployment(3, 4, 2)  # three experts on two GPUs need four slots
    found = redundancy(routing, routing.loads()[None], Placement([[0, 1, 2, 0]], 3), deployment, batch=None)
    assert lines(found)[:3] == [
        "4 slots are the fewest with equally many on each GPU: with fewer there is nothing to compare.",
        "The best choice reads 2.00, +0.0 % against map under hashed choice.",
        READS_ALONE,
    ]
    assert "| map | even |" in report(found)


def test_slots_are_looked_at_from_the_fewest_upwards() -> None:
    routing, deployment = every_expert(8, 4), Deployment(4, 8, 4)
    found = by_slots.activated_by_slots(routing, routing.loads()[None], deployment, batch=None)
    assert [(one.slots, one.found.mean("hashed"), one.found.mean("best")) for one in found] == [(4, 1.0, 1.0), (8, 2.0, 1.0)]
    text = by_slots.report(found, None)
    assert "Under hashed choice 4 slots read the fewest, 1.00; 8 slots read 2.00, +100.0 % against 4." in text
    assert "With 4 slots it is within 1 % of active experts over GPUs, 1.00: more slots buy no fewer." in text
    assert [one["slots"] for one in json.loads(json.dumps(by_slots.as_dict(found, None)))["steps"]] == [4, 8]
    with pytest.raises(InputError, match="equally many on each"):
        by_slots.activated_by_slots(routing, np.ones((1, 1, 4), np.int64), Deployment(4, slots_per_gpu=[1, 2, 1]), batch=1)
    with pytest.raises(InputError, match="most_slots is 3"):
        by_slots.activated_by_slots(routing, np.ones((1, 1, 4), np.int64), deployment, most_slots=3)


def test_times_are_said_by_the_tiles_of_a_profile_and_with_its_source() -> None:
    profile = Profile("a card", "a page", "that card", tiles=Tiles(3e9, 2.0, 3, memory_bytes_per_second=1e9))
    assert profile.tiles is not None
    routing, deployment = every_expert(8, 4), Deployment(4, 8, 4)
    both = Placement([[0, 1, 1, 2, 2, 3, 3, 0]], 4)
    found = redundancy(routing, routing.loads()[None], both, deployment, batch=None, profile=profile)
    # two experts of 4 tokens each are 2 tiles, 4 s; one of 8 is 3 tiles, 6 s; the read of 3 s is shorter
    assert (found.own.mean_seconds("even"), found.own.mean_seconds("best"), found.plain.mean_seconds("best")) == (8.0, 6.0, 6.0)
    text = report(found)
    assert "| predicted ms |" in text
    assert "8000.000" in text
    assert text.endswith("Profile a card: a page; measured on that card.")
    assert as_dict(found)["profile"] == {"name": "a card", "source": "a page", "measured_on": "that card"}
    sized = by_slots.activated_by_slots(routing, routing.loads()[None], deployment, batch=None, profile=profile)
    told = by_slots.as_dict(sized, None, profile)["steps"][1]["predicted_expert_time"]
    assert (told["unit"], told["profile"], told["mean"]["best"]) == ("seconds", "a card", 6.0)
    assert as_dict(found)["plain"]["predicted_expert_time"]["mean"]["best"] == 6.0
    faster = "in time predicted by a card it is faster than hashed, 6000.000 ms against "
    assert faster in text
    assert "it is slower than hashed at no number of slots." in by_slots.report(sized, None, profile)
    assert "The least time so predicted is 6000.000 ms, of 4 slots under any choice." in by_slots.report(sized, None, profile)
    assert READS_ALONE not in text
    assert "predicted ms, hashed" in by_slots.report(sized, None, profile)
    silent = redundancy(routing, routing.loads()[None], both, deployment, batch=None)
    assert "predicted" not in report(silent)
    assert as_dict(silent)["own"]["predicted_expert_time"] is None


def test_a_best_choice_that_takes_longer_is_said_to() -> None:
    profile = Profile("a card", "a page", "that card", tiles=Tiles(0.0, 1.0, 1))  # a second a token: reads cost nothing
    routing, deployment = RoutingTrace([[[0]]] * 8, 2, step=[0] * 8), Deployment(2, 4, 2)
    loads, both = routing.loads()[None], Placement([[0, 1, 1, 0]], 2)
    found = redundancy(routing, loads, both, deployment, batch=None, profile=profile, past=routing, planner="fast")
    hashed = found.own.mean_seconds("hashed")
    assert hashed is not None and 4 <= hashed < 8 == found.own.mean_seconds("best")  # the hash sends some to the other replica
    text = report(found)
    by = f"{1000 * hashed:.3f}, +{100 * (8 / hashed - 1):.1f} %"
    assert "The best choice reads 1.00, +0.0 % against map under hashed choice" in text
    assert f"it is slower than hashed, 8000.000 ms against {by}." in text
    assert f"in predicted time {1000 * hashed:.3f} ms, -{100 * (1 - hashed / 8):.1f} % against 8000.000" in text
    assert "The best choice with that map is best in reads alone: in time predicted by a card it is " in text
    sized = by_slots.activated_by_slots(routing, loads, deployment, batch=None, profile=profile)
    said = by_slots.report(sized, None, profile)
    slower = "is slower than hashed at 1 of 2 numbers of slots, most with 4: 8000.000 ms against 4000.000, +100.0 %."
    assert slower in said
    assert "The least time so predicted is 4000.000 ms, of 4 slots under hashed choice." in said


@pytest.mark.parametrize("seed", range(4))
def test_times_are_those_of_a_loop_over_gpus(seed: int) -> None:
    rng = np.random.default_rng(seed)
    deployment, steps = Deployment(5, 8, 4), decode_steps(RoutingTrace(rng.integers(0, 5, (20, 1, 1)), 5), 10)
    slots = rng.integers(0, 8, (20, 2))
    phy2log = np.array([0, 1, 2, 3, 4, 0, 1, 2])
    tiles = Tiles(2e9, 1.5, 2, memory_bytes_per_second=1e9)
    found = expert_seconds(phy2log[slots], slots, steps, deployment, tiles)
    for step in range(2):
        copies: dict[tuple[int, int], int] = {}
        for slot in slots[steps.step == step].ravel().tolist():
            key = slot // 2, int(phy2log[slot])
            copies[key] = copies.get(key, 0) + 1
        times = [0.0] * 4
        for (gpu, _), rows in copies.items():
            times[gpu] += max(2.0, 1.5 * -(-rows // 2))
        assert found[step] == pytest.approx(max(times))


def test_all_is_said_only_of_all() -> None:
    assert [share(value) for value in (1.0, 0.99999, 0.5)] == ["100 %", "99.9 %", "50.0 %"]
