"""Which tokens are planned on and which are served, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eplb_gap.analysis.asked import read_problem
from eplb_gap.analysis.network import routed as split
from eplb_gap.analysis.network.routed import along, in_windows, layer_ids, without_layers
from eplb_gap.analysis.network.served import planned_and_served
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats import grouped
from eplb_gap.problem.loads import LoadTrace
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace

STEP = np.repeat([0, 3, 4, 7, 9], [2, 3, 1, 2, 4])
EXPERTS = np.random.default_rng(0).random((12, 2, 4)).argsort(axis=2)[:, :, :2]
WHOLE = RoutingTrace(EXPERTS, 4, step=STEP, provenance={"layer_ids": [3, 5]})
TWO_NODES = Deployment(4, 4, 4, num_nodes=2)
MAP = Placement([[0, 1, 2, 3]] * 2, 4)


@pytest.mark.parametrize(
    ("window", "spans"), [(None, [(0, 2), (2, 5), (5, 6), (6, 8), (8, 12)]), (2, [(2, 6), (6, 12)]), (5, [(0, 12)])]
)
def test_windows_are_steps_and_their_tokens_sum_to_the_loads(window: int | None, spans: list[tuple[int, int]]) -> None:
    routed = in_windows(WHOLE, window)
    assert list(routed.spans) == spans
    for index, (first, end) in enumerate(spans):
        tokens = routed.tokens(index)
        assert (tokens.experts == EXPERTS[first:end]).all()
        assert (tokens.loads() == routed.trace.window(index)).all()
    assert len(routed.recorded.loads) == 5 and (routed.recorded.loads == WHOLE.load_trace().loads).all()
    as_loads = grouped(routed.recorded, window)
    assert (routed.trace.loads == as_loads.loads).all() and routed.trace.window_steps == as_loads.window_steps
    assert routed.trace.provenance.get("left_out_steps", 0) == as_loads.provenance.get("left_out_steps", 0)
    for wrong in (0, 6, True):
        with pytest.raises(InputError, match="1 to 5 steps"):
            in_windows(WHOLE, wrong)


def test_tokens_without_steps_are_halved_between_requests_or_counted() -> None:
    bare = replace(WHOLE, step=None)
    assert in_windows(bare).spans == ((0, 6), (6, 12))
    by_request = in_windows(replace(bare, request=np.repeat([4, 1, 2], [4, 7, 1])))
    assert by_request.spans == ((0, 4), (4, 12))
    assert "the first 4 tokens are window 0, the other 8 window 1" in by_request.trace.provenance["notices"][0]
    assert len(in_windows(replace(bare, provenance={"notices": ["padding"]})).trace.provenance["notices"]) == 2
    fives = in_windows(bare, 5)
    assert fives.spans == ((2, 7), (7, 12)) and fives.trace.provenance["left_out_tokens"] == 2
    for routed in (by_request, fives):
        assert all((routed.tokens(i).loads() == routed.trace.window(i)).all() for i in range(2))
    for wrong in (0, 13, True):
        with pytest.raises(InputError, match="the routing has no steps, so that 1 to 12 tokens are needed"):
            in_windows(bare, wrong)
    with pytest.raises(InputError, match="the routing has 1 token"):
        in_windows(bare.part(0, 1))


def test_steps_that_would_fill_the_memory_are_summed_at_once_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "BLOCK", 3)
    monkeypatch.setattr(split, "MOST_COUNTS", 4 * 2 * 4)
    routed = in_windows(WHOLE, 2)
    assert routed.recorded is routed.trace and (routed.tokens(1).loads() == routed.trace.window(1)).all()
    many = RoutingTrace(np.zeros((1 << 14, 1, 1), dtype=np.int64), 1 << 15, step=np.arange(1 << 14))
    with pytest.raises(InputError, match="the loads of the routing's windows has shape"):
        in_windows(many)


def test_tokens_beside_loads_are_those_of_their_steps() -> None:
    recorded = LoadTrace(np.full((11, 2, 4), 9), {"layer_ids": [3, 5]})
    routed = along(WHOLE, grouped(recorded, 2), recorded)  # step 0 fills no window
    assert routed.spans == ((2, 2), (2, 6), (6, 6), (6, 8), (8, 12))
    assert along(WHOLE, recorded, replace(recorded, provenance={"layer_ids": [3, 5], "window_steps": 4})).spans[:2] == (
        (0, 5),
        (5, 8),
    )
    for broken, says in (
        (replace(WHOLE, provenance={}), "the routing has 2 layers, 0 to 1; the loads have 2 layers, 3 to 5"),
        (replace(WHOLE, num_experts=5), "the routing has 5 experts; the loads have 4"),
        (replace(WHOLE, step=None), "the routing has no steps"),
        (replace(WHOLE, step=STEP + 2), "the routing has step 11; the loads have steps 0 to 10"),
    ):
        with pytest.raises(InputError, match=says):
            along(broken, recorded, recorded)
    with pytest.raises(InputError, match="the routing has no tokens of plan-window 0"):
        planned_and_served(routed, TWO_NODES, 0, 1, [("map", MAP)], "none", "hashed")
    notes = planned_and_served(routed, TWO_NODES, 3, 4, [("map", MAP)], "none", "hashed").notes
    assert notes[0].startswith("The routing holds 5.6 % and 11.1 % of the loads that are planned on and served; fewest-visits")
    few = replace(recorded, loads=np.full((11, 2, 4), 1))
    notes = planned_and_served(along(WHOLE, few, few), TWO_NODES, 4, 9, [("map", MAP)], "none", "hashed").notes
    assert notes[0] == "The routing of window 9 is not part of its loads: an expert has more tokens in it."


def test_layers_are_left_out_by_name() -> None:
    rest = without_layers(WHOLE, [3])
    assert layer_ids(rest) == [5] and (rest.experts == EXPERTS[:, 1:]).all() and (rest.step == STEP).all()
    for left_out, says in (([4], "names layer 4; the routing has no such layer"), ([3, 5], "names all 2 layers")):
        with pytest.raises(InputError, match=says):
            without_layers(WHOLE, left_out)
    for ids in ([1], "ab", [0, "b"], None):
        with pytest.raises(InputError, match="an index for each of 2 layers"):
            without_layers(replace(WHOLE, provenance={"layer_ids": ids}), ())
    assert without_layers(replace(WHOLE, provenance={"joined": 5, "kind": "drawn"}), ()).provenance == {"kind": "drawn"}


@pytest.mark.parametrize(
    ("source", "gpus", "rule", "says"),
    [
        (None, 4, "local-first", "no sources: as many tokens come from every GPU; local-first has nothing to be near to"),
        (None, 4, "hashed", "no sources: as many tokens come from every GPU."),
        (np.arange(12) % 4, 4, "local-first", "Tokens come from the GPUs that the routing says."),
    ],
)
def test_where_tokens_come_from_is_said(source: np.ndarray | None, gpus: int, rule: str, says: str) -> None:
    routed = in_windows(replace(WHOLE, source=source))
    found = planned_and_served(routed, Deployment(4, 4, gpus), 3, 4, [("map", MAP)], "node-dedup", rule)
    assert says in found.notes[0]
    assert found.maps[0].served.sources == ("recorded" if source is not None else "even")
    if source is not None:
        with pytest.raises(InputError, match="tokens of GPU 3; the deployment has GPUs 0 to 1"):
            planned_and_served(routed, Deployment(4, 4, 2), 3, 4, [("map", MAP)], "node-dedup", rule)
    assert found.notes[-1] == "There is one node: every token visits it, and no copy crosses nodes."


def test_the_global_policy_keeps_the_nodes_that_tokens_cross(tmp_path) -> None:
    WHOLE.save(tmp_path / "routing.npz")
    asked = read_problem(
        routing=tmp_path / "routing.npz", num_slots=4, num_gpus=4, num_nodes=2, num_groups=2, policy="global", window=2
    )
    assert (asked.deployment.num_nodes, asked.cluster.num_nodes, asked.cluster.policy) == (1, 2, "global")
    with pytest.raises(InputError, match="loads is missing; recorded loads, or routing, are needed"):
        read_problem(num_slots=4, num_gpus=4)
    with pytest.raises(InputError, match="traffic needs equally many"):
        read_problem(routing=tmp_path / "routing.npz", slots_per_gpu=[3, 2])
    with pytest.raises(InputError, match="format is 'x', which is of loads"):
        read_problem(routing=tmp_path / "routing.npz", num_slots=4, num_gpus=4, format="x")
