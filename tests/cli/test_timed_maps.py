"""``calibrate --timed-maps`` as its user meets it: the published table, maps with loads, a profile that is read, one error."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import run

from eplb_gap.analysis.step_time.predict import imbalance
from eplb_gap.analysis.step_time.profile import FOLDER, read_profile
from eplb_gap.analysis.step_time.timed_maps import read_timed_maps
from eplb_gap.problem import Deployment, LoadTrace, Placement, formats

PUBLISHED = FOLDER / "qwen2-57b-ep8-h20.csv"
THREE = [{"imbalance": 1.0, "seconds": 5}, {"imbalance": 1.2, "seconds": 5.5}, {"imbalance": 1.4, "seconds": 6.5}]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_published_table(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "calibrate", "--timed-maps", PUBLISHED, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert 0.28 <= found["beta"] <= 0.29 and 1.09 <= found["knee"] <= 1.10 and found["files"] == []
    assert max(abs(one["left_out_error"]) for one in found["maps"]) < 0.005
    for _ in range(2):  # what it wrote itself is written over
        assert run(monkeypatch, "calibrate", "--timed-maps", PUBLISHED, "--out", "mine.toml") == 0
        said = capsys.readouterr().out
    assert "seconds of 16,384 requests: 82.86 (1 + 0.283 max(0, imbalance - 1.096))" in said
    assert "beta 0.283 (95 % interval 0.260 to 0.306), knee 1.096 (95 % interval 1.060 to 1.121)" in said
    assert "largest error where the others predict a map: 0.48 %" in said
    profile = read_profile("mine.toml")
    assert profile.hinge is not None and profile.hinge.beta == found["beta"] and profile.hinge.beta_interval is not None
    assert "H20" in profile.measured_on and profile.timed == "16,384 requests" and PUBLISHED.name in profile.source


def test_an_end_that_is_not_bounded_is_said_written_and_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("few.csv").write_text("imbalance,seconds\n1,10\n1.05,10.01\n1.1,10.02\n1.4,11\n")
    assert run(monkeypatch, "calibrate", "--timed-maps", "few.csv", "--out", "mine.toml") == 0
    assert "beta 0.327 (95 % interval from 0.284, not bounded above), knee" in capsys.readouterr().out
    assert run(monkeypatch, "calibrate", "--timed-maps", "few.csv", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    profile = read_profile("mine.toml")
    assert profile.hinge is not None and profile.hinge.beta_interval is not None
    assert list(profile.hinge.beta_interval) == found["beta_interval"] == [pytest.approx(0.284, abs=0.001), None]
    assert ', "not bounded"]' in Path("mine.toml").read_text()


def test_maps_and_the_loads_that_were_served(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, deployment = np.random.default_rng(3), Deployment(12, 12, 4)
    loads = rng.integers(50, 400, (3, 2, 12))
    LoadTrace(loads).save("loads.npz")
    (folder / "maps").mkdir()
    rows = []
    for i in range(6):
        placement = Placement(np.stack([rng.permutation(12) for _ in range(2)]), 12)
        formats.write_map(f"maps/{i}.json", placement, deployment, "vllm")
        r = imbalance(placement, loads.sum(axis=0), deployment)
        rows.append({"map": f"{i}.json", "seconds": 10 * (1 + 0.4 * max(0.0, r - 1.2)), "r": r})
    assert min(float(row["r"]) for row in rows) < 1.2 < max(float(row["r"]) for row in rows)
    Path("maps/timed.csv").write_text("seconds,map\n" + "".join(f"{row['seconds']},{row['map']}\n" for row in rows))
    command = ("calibrate", "--timed-maps", "maps/timed.csv")
    asked = ("--loads", "loads.npz", "--slots", "12", "--gpus", "4")
    assert run(monkeypatch, *command, *asked, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [found["beta"], found["knee"], found["seconds"]] == pytest.approx([0.4, 1.2, 10.0], rel=1e-6)
    assert [one["imbalance"] for one in found["maps"]] == pytest.approx([row["r"] for row in rows])
    Path("maps/bad.json").write_text(json.dumps([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10]] * 2))
    Path("maps/wrong.csv").write_text("seconds,map\n3,bad.json\n")
    Path("maps/method.csv").write_text("seconds,map\n3,fast\n")
    for words, says in (
        (("calibrate", "--timed-maps", "maps/wrong.csv", *asked), "map maps/bad.json: layer 0: expert 11 has no replica"),
        (("calibrate", "--timed-maps", "maps/method.csv", *asked), "map maps/fast does not exist; a file is needed"),
        (command, "--loads is missing; the timed maps are files"),
        ((*command, "--loads", "loads.npz"), "--deployment is missing"),
        ((*command, "--loads", "loads.npz", "--slots", "16", "--gpus", "4"), "16"),
    ):
        assert run(monkeypatch, *words) == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--online",), "--online is given with --timed-maps, which does not use it"),
        (("--budget-ms", "3"), "--budget-ms is given with --timed-maps"),
        (("--step-ms", "3"), "--step-ms is given with --timed-maps"),
        (("--deployment", "mixtral-ep8"), "--deployment is given with --timed-maps .*, which says the imbalances"),
        (("--loads", "loads.npz"), "--loads is given with --timed-maps"),
        (("--policy", "global"), "--policy is given with --timed-maps"),
        (("--out", "profile.json"), "a name that ends in .toml is needed"),
    ],
)
def test_options_that_do_not_go_with_it(
    more: tuple[str, ...], says: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "calibrate", "--timed-maps", PUBLISHED, *more) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert re.search(says, error)
    assert list(folder.iterdir()) == []


def test_without_loads_it_says_what_is_possible(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "calibrate") == 2
    assert "--loads is missing; recorded loads, or --timed-maps FILE, are needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("imbalance,seconds\n1.0,5\n1.2,6\n", "2 maps of 2 different imbalances"),
        ("imbalance,seconds\n1.0,5\n1.2,6\n1.2,6\n", "3 maps of 2 different imbalances"),
        ("imbalance,seconds\n1.0,5\n1.2,5\n1.3,5\n", "do not grow"),
        ("imbalance,seconds\n1.1,5\n1.2,6\n1.3,7\n1.4,8\n", "no map lies in the flat part"),
        ("imbalance,seconds\n1,05,5\n1.2,6\n", "line 2 has 3 values; the header has 2"),
        ("# timed: x\n\nimbalance,seconds\n1.0,5\n\n1.2,1_0\n", "line 6: seconds is '1_0'"),
        ("imbalance,seconds\nnan,5\n", "imbalance is 'nan'"),
        ("imbalance;seconds\n1.05;5\n", "the header is imbalance;seconds"),
        ("imbalance,seconds,seconds\n", "the header is imbalance, seconds, seconds"),
        ("imbalance,seconds\n", "has no maps"),
        ("imbalance,map,seconds\n1,a,2\n", "has imbalance and map; either"),
        ("seconds\n1\n", "has neither; either"),
        ("# timed: a\n# timed: b\nimbalance,seconds\n1,2\n", "line 2 says timed again"),
        ("imbalance,seconds\n" + "1,2\n" * 300, "has 300 maps; at most 256 are read"),
        ('imbalance,seconds\n"1,2\n', "is no CSV"),
        ("", "is empty"),
        ("#" * 300_000, "at most 262144 are read"),
        ([], "has no maps"),
        (3, "an object is needed"),
        ({"maps": 3}, "maps is 3"),
        ({"maps": []}, "has no maps"),
        ({"maps": [3, 3, 3]}, r"maps\[0\] has neither"),
        ({"maps": [*THREE, {"seconds": 3}]}, r"maps\[3\] has no field 'imbalance'"),
        ({"maps": [{**THREE[0], "seconds": True}]}, r"maps\[0\]: seconds is True"),
        ({"maps": [{**THREE[0], "gpu": 1}]}, "unknown field 'gpu'"),
        ({"maps": THREE, "timed": 3}, "timed is 3"),
        ({"maps": THREE, "where": "x"}, "unknown field 'where'"),
        ({"maps": [{"map": "\0", "seconds": 3}]}, "map is .* the name of a file"),
        ({"maps": [{"map": "no.json", "seconds": 3}]}, "--loads is missing"),
    ],
)
def test_what_is_no_table_of_timed_maps_is_one_error(
    content: Any, says: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = folder / ("timed.csv" if isinstance(content, str) else "timed.json")
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    assert run(monkeypatch, "calibrate", "--timed-maps", path, "--out", "p.toml") == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and not Path("p.toml").exists()
    assert re.search(says, error)


def test_json_and_csv_say_the_same(folder: Path) -> None:
    about = {"measured_on": "two cards", "timed": "a step"}
    Path("a.json").write_text(json.dumps({**about, "maps": THREE}))
    Path("list.json").write_text(json.dumps(THREE))
    assert read_timed_maps("list.json").imbalance == (1.0, 1.2, 1.4)
    lines = [f"# {name}: {text}" for name, text in about.items()]
    Path("a.csv").write_text("\n".join([*lines, "imbalance, seconds", *(f"{m['imbalance']}, {m['seconds']}" for m in THREE)]))
    assert read_timed_maps("a.json") == read_timed_maps("a.csv")
    assert read_timed_maps("a.csv").measured_on == "two cards"
