"""``--routing``: traffic beside balance, on planned and on served tokens."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from in_process import run

from eplb_gap import Deployment, Placement, network_traffic, rebalance
from eplb_gap.analysis.network.planning import fewest_visits
from eplb_gap.cli.options import out
from eplb_gap.problem.formats import read_map, write_map
from eplb_gap.problem.routing.trace import RoutingTrace

EXPERTS = (np.random.default_rng(3).random((60, 2, 8)) * np.arange(1, 9)).argsort(axis=2)[:, :, -2:]
ROUTING = RoutingTrace(EXPERTS, 8, step=np.arange(60) // 10)
SHAPE = ("--slots", 12, "--gpus", 4, "--nodes", 2)
DEPLOYMENT = Deployment(8, 12, 4, num_nodes=2)


@pytest.fixture
def routing(tmp_path):
    path = tmp_path / "routing.npz"
    ROUTING.save(path)
    return path


def test_json_has_the_traffic_of_every_map_on_both_windows(routing, monkeypatch, capsys, tmp_path):
    identity = Placement([[0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]] * 2, 8)
    write_map(tmp_path / "map.json", identity, DEPLOYMENT, "phy2log-json")
    choice = ("--dispatch", "rank-dedup", "--replicas", "smallest-cover", "--window", 2)
    assert (
        run(
            monkeypatch,
            "evaluate",
            "--routing",
            routing,
            *SHAPE,
            *choice,
            "--map",
            "fast",
            "--map",
            tmp_path / "map.json",
            "--json",
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["plan_window"], found["serve_window"]) == (1, 2)
    traffic = found["traffic"]
    by_name = {one["map"]: one for one in traffic["maps"]}
    assert (traffic["dispatch"], traffic["replicas"], traffic["sources"]) == ("rank-dedup", "smallest-cover", "even")
    planned = rebalance(ROUTING.part(20, 40).loads(), DEPLOYMENT)
    for name, placed in (("fast", planned), ("map.json", identity)):
        for window, tokens in (("planning", ROUTING.part(20, 40)), ("serving", ROUTING.part(40, 60))):
            expected = network_traffic(tokens, placed, DEPLOYMENT, "rank-dedup", "smallest-cover")
            told = by_name[name][window]
            assert told["tokens"] == 20
            for figure, value in vars(expected.total()).items():
                assert told[figure] == (None if value is None else f"{value.numerator}/{value.denominator}")
            assert told["layers"][1]["gpu_loads"] == list(expected.layers[1].counted.gpu_loads)
            assert sum(map(Fraction, told["layers"][1]["into_nodes"])) == sum(expected.layers[1].counted.into_nodes)
    # Balance beside it is that of even shares.
    assert float(Fraction(by_name["fast"]["serving"]["even_gpu_load"])) == pytest.approx(
        1 / found["maps"][0]["serving"]["balancedness_gpu"]
    )


EVALUATE = ("evaluate", "--map", "fast", "--per-layer")


@pytest.mark.parametrize(
    ("command", "dispatch", "says", "silent"),
    [
        (("explain",), "node-dedup", ["nodes a token, bound", "gap of visits", "combine returns every token to its source"], []),
        (EVALUATE, "node-dedup", ["nodes a token, bound", "gap of visits", "combine returns every token to its source"], []),
        (EVALUATE, "rank-dedup", ["GPUs a token, bound", "bound and gap are those of GPU visits"], []),
        (EVALUATE, "none", ["the network's load is the GPU load"], ["a token, bound", "combine returns"]),
    ],
)
def test_the_same_lines_are_printed_by_both(command, dispatch, says, silent, routing, monkeypatch, capsys):
    monkeypatch.setattr(out, "_width", 300)  # COLUMNS is read once, where it was set when the console was made
    assert run(monkeypatch, *command, "--routing", routing, *SHAPE, "--dispatch", dispatch) == 0
    text = capsys.readouterr().out.partition("Traffic of a layer, dispatch")[2]
    assert "10 tokens planned on, 10 served" in text and "GPU load, even shares" in text and "GPU load, local-first" in text
    table, _, layers = text.partition("fast, planned / served")
    assert bool(layers) is (command[0] == "evaluate")
    found = network_traffic(ROUTING.part(50, 60), rebalance(ROUTING.part(40, 50).loads(), DEPLOYMENT), DEPLOYMENT, dispatch)
    total, second = found.total(), found.layer(1)
    expected = {
        "nodes a token": f"{float(total.node_visits):.3f}",
        "GPUs a token": f"{float(total.gpu_visits):.3f}",
        "copies between nodes": f"{float(total.between_nodes):.3f}",
        "into the busiest node": f"{float(total.node_in):.4f}",
        "out of the busiest node": f"{float(total.node_out):.4f}",
        "into the busiest GPU": f"{float(total.gpu_in):.4f}",
        "GPU load, local-first": f"{float(total.gpu_load):.4f}",
        "GPU load, even shares": f"{float(total.even_gpu_load):.4f}",
        "next layer needs no other node": f"{100 * float(total.stays):.1f} %",
    }
    for name, value in expected.items():
        assert re.search(rf"│ {name} +│ .* / {value} │", table)
    if layers:
        figures = f"{float(second.node_visits):.3f} .*/ {float(second.gpu_load):.4f} .*/ {float(second.even_gpu_load):.4f} "
        assert re.search(rf"│ +1 │.*/ {figures}", layers)
    assert all(line in text for line in says) and not any(line in text for line in silent)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--routing", "nowhere.npz", *SHAPE], "nowhere.npz does not exist"),
        (["--routing", "LICENSE", *SHAPE], "LICENSE"),
        (["--routing", "PATH", "--slots", 300, "--gpus", 4, "--experts", 4], "experts is 4; file"),
        (["--routing", "PATH", "--deployment", "olmoe-ep16"], "the loads have 8 experts; deployment 'olmoe-ep16' has 64"),
        (["--routing", "PATH"], "--deployment is missing"),
        (["--routing", "PATH", *SHAPE, "--window", 7], "1 to 6 steps"),
        (["--routing", "PATH", *SHAPE, "--window", 6], "the trace has 1 window"),
        (["--routing", "PATH", *SHAPE, "--dispatch", "all"], "--dispatch"),
        (["--routing", "PATH", *SHAPE, "--leave-out-layers", "4"], "names layer 4; the routing has no such layer"),
        (["--routing", "PATH", "--slots-per-gpu", "5,4,3"], "traffic needs equally many"),
        (
            ["--routing", "PATH", *SHAPE, "--dead-gpus", "1", "--nodes", 1],
            "is dead; traffic needs all GPUs alive",
        ),
        (["--routing", "PATH", *SHAPE, "--map", "one-layer.json"], "one-layer.json has 1 layers; the loads have 2"),
        (["--routing", "PATH", *SHAPE, "--protocol", "gpu"], "--routing is given with --protocol gpu"),
        (["--loads", "LOADS", *SHAPE, "--replicas", "hashed"], "--replicas is hashed without --routing"),
        (["--loads", "LOADS", *SHAPE, "--routing", "OTHER"], "the routing has 1 layers, 0 to 0; the loads have 2 layers, 0 to 1"),
        (SHAPE, "--loads is missing"),
    ],
)
def test_bad_input_is_one_line(given, says, routing, monkeypatch, capsys, tmp_path):
    ROUTING.load_trace().save(tmp_path / "loads.npz")
    replace(ROUTING, experts=EXPERTS[:, :1]).save(tmp_path / "other.npz")
    write_map(tmp_path / "one-layer.json", Placement([[0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]], 8), DEPLOYMENT, "phy2log-json")
    (tmp_path / "LICENSE").write_text("no routing")
    monkeypatch.chdir(tmp_path)
    names = {"PATH": routing, "LOADS": tmp_path / "loads.npz", "OTHER": tmp_path / "other.npz"}
    monkeypatch.setenv("COLUMNS", "300")
    assert run(monkeypatch, "evaluate", *(names.get(word, word) for word in given), "--map", "fast") == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error


def test_explain_sets_the_global_policy_beside_a_hierarchical_map(routing, monkeypatch, capsys):
    hierarchical = Deployment(8, 12, 4, num_nodes=2, num_groups=4)
    planned, served = ROUTING.part(0, 30), ROUTING.part(30, 60)
    assert run(monkeypatch, "explain", "--routing", routing, *SHAPE, "--groups", 4, "--window", 3, "--json") == 0
    maps = {one["map"]: one for one in json.loads(capsys.readouterr().out)["traffic"]["maps"]}
    assert list(maps) == ["fast", "fast, global policy"]
    for name, deployment in (("fast", hierarchical), ("fast, global policy", DEPLOYMENT.as_global())):
        found = network_traffic(served, rebalance(planned.loads(), deployment), hierarchical).total()
        assert Fraction(maps[name]["serving"]["node_visits"]) == found.node_visits
        assert Fraction(maps[name]["serving"]["bound"]) == found.bound


def test_routing_beside_loads_is_of_their_windows(routing, monkeypatch, capsys, tmp_path):
    ROUTING.load_trace().save(tmp_path / "loads.npz")
    sampled = np.flatnonzero(np.arange(60) % 2 == 0)
    replace(ROUTING, experts=EXPERTS[sampled], step=ROUTING.step[sampled]).save(tmp_path / "sample.npz")
    both = ("evaluate", "--loads", tmp_path / "loads.npz", "--routing", tmp_path / "sample.npz", *SHAPE, "--map", "fast")
    assert run(monkeypatch, *both, "--window", 3, "--json") == 0
    found = json.loads(capsys.readouterr().out)["traffic"]
    assert found["maps"][0]["serving"]["tokens"] == 15
    assert found["notes"][0].startswith("The routing holds 50.0 % and 50.0 % of the loads that are planned on and served;")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--dispatch", "none"], "--dispatch none, which pays for no visits"),
        (["--slots", 12], "has redundant slots"),
        (["--groups", 4], "is hierarchical, whose fewest visits are exact"),
    ],
)
def test_a_proof_is_asked_for_where_there_can_be_one(more, says, routing, monkeypatch, capsys):
    asked = ["evaluate", "--routing", routing, "--gpus", 4, "--nodes", 2, "--map", "fast", "--prove-visits"]
    plain = [] if "--slots" in more else ["--slots", 8]
    assert run(monkeypatch, *asked, *plain, *more) == 2
    assert says in capsys.readouterr().err
    assert run(monkeypatch, *asked, "--slots", 8) == 0
    captured = capsys.readouterr()
    assert "layer 1 of 2" in captured.err and "gap of visits" in captured.out


def test_a_map_of_few_visits_is_planned_and_written(routing, monkeypatch, capsys, tmp_path):
    target = tmp_path / "map.json"
    shape = ["--routing", routing, "--gpus", 4, "--slots", 8, "--nodes", 2]
    asked = ["convert", "--map", "fewest-visits", *shape, "--to", "phy2log-json"]
    assert run(monkeypatch, *asked, target) == 0
    deployment = Deployment(8, 8, 4, num_nodes=2)
    assert read_map(target, deployment).phy2log.tolist() == fewest_visits(ROUTING, deployment).phy2log.tolist()
    assert run(monkeypatch, "evaluate", *shape, "--map", "fast", "--map", "fewest-visits") == 0
    assert "fewest-visits" in capsys.readouterr().out
    one_node = ["--gpus", 4, "--slots", 8, "--map", "fewest-visits"]
    assert run(monkeypatch, "evaluate", "--routing", routing, *one_node) == 2
    assert "has one node" in capsys.readouterr().err
