"""``replay`` as its user meets it: table, JSON, figure and page, one error for bad input, what is done kept on Ctrl-C."""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt

from eplb_gap import Controller, Deployment
from eplb_gap.analysis.figures.replay_timeline import timeline
from eplb_gap.analysis.figures.style import drawn
from eplb_gap.analysis.replay import replay as module
from eplb_gap.cli import main as cli
from eplb_gap.problem import LoadTrace

pytestmark = pytest.mark.usefixtures("short_plans")

STEPS = np.random.default_rng(5).integers(1, 90, (24, 2, 8))
SHAPE = ("--slots", "10", "--gpus", "5")
PERIODIC = "periodic:interval=4,method=initial_program"
NAMES = ("<script>alert(1)</script>", "a|b $x^{", "_hidden", "a|b $x^{")
Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "steps.npz"
    LoadTrace(STEPS, {"phases": [{"name": "<b>$prose", "steps": 8}, {"name": "code", "steps": 16}]}).save(path)

    def call(*arguments: Any) -> int:
        """Run the command line in this process and return its exit code."""
        monkeypatch.setattr(sys, "argv", ["eplb-gap", "replay", "--loads", str(path), *SHAPE, *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as stopped:
            return int(stopped.code or 0)
        return 0

    return call


def test_a_table_a_figure_and_a_page(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure, page, named, costs = tmp_path / "new" / "f.svg", tmp_path / "p.html", tmp_path / "c.toml", tmp_path / "costs.toml"
    costs.write_text("[costs]\nexpert_bytes = 1e6\nbandwidth = 1e9\n")
    table = '[[controller]]\nkind = "{}"\nname = "{}"\n{}'
    named.write_text(table.format("periodic", NAMES[0], 'interval = 4\nmethod = "initial_program"\n')
                     + "".join(table.format("none", name, "") for name in NAMES[1:]))  # fmt: skip
    assert run("--controller", named, "--costs", costs, "--warm-up", 18, "--limit", 12, "--figure", figure, "--page", page) == 0
    said = capsys.readouterr().out
    assert f"| {NAMES[0]} |" in said
    assert r"| a\|b $x^{ |" in said
    assert r"| a\|b $x^{ #2 |" in said
    assert "costs: 1 MB an expert, 1 GB/s a GPU, 0 % of the transfer hidden" in said
    assert "no controller that changes its maps at every multiple of 12 steps alone serves more than" in said
    assert figure.read_text().lstrip().startswith("<?xml")
    written = page.read_text()
    for name in (*NAMES, "a|b $x^{ #2"):
        assert html.escape(name) in written
    for sign in ("<script", "<b>", "@import", "src=", "<link"):
        assert sign not in written
    assert written.count("<svg") == 1
    # What is left of addresses are the names of vocabularies, and what styles and clips refer to is in the page.
    assert set(re.findall(r"https?://[^/\"]*", written)) <= {"http://www.w3.org", "http://creativecommons.org", "http://purl.org"}
    assert set(re.findall(r"(?:href=\"|url\()(.)", written)) == {"#"}


def test_figures_name_what_is_drawn() -> None:
    trace = LoadTrace(STEPS, {"phases": [{"name": "prose $", "steps": 8}, {"name": "code", "steps": 16}]})
    given = [Controller("none", f"_{number} $") for number in range(10)] + [
        Controller("periodic", interval=4, method="initial_program")
    ]
    result = module.replay(trace, Deployment(8, 10, 5), given)
    fig = timeline(result, trace)
    top, middle, bottom = fig.axes
    [legend] = fig.legends
    assert legend.get_title().get_text() == "mean over the judged steps; the best 8 of 11 controllers"
    assert [text.get_text()[7:] for text in legend.get_texts()] == [
        "periodic (interval 4, method initial_program)", *(rf"_{number} \$" for number in range(7))
    ]  # fmt: skip
    assert {text.get_text().strip() for text in top.texts} == {"not judged", r"prose \$", "code"}
    assert "phases of the recording" in middle.get_title(loc="left")
    assert (top.get_ylabel(), bottom.get_xlabel()) == ("served balancedness", "step")
    summed = trace.windowed(2)
    fig = timeline(module.replay(summed, Deployment(8, 10, 5), given[:1]), summed)
    assert fig.axes[2].get_xlabel() == "window of 2 steps"
    assert drawn(timeline(result, trace), ".svg") == drawn(
        timeline(result, trace), ".svg"
    )  # drawing is what would read a name as a formula
    for count in (1, 2, 6):
        steady = LoadTrace(np.repeat(STEPS[:1], count, axis=0))
        fig = timeline(module.replay(steady, Deployment(8, 10, 5), given[:1]), steady)
        assert "drift above 3 times its median" in fig.axes[1].get_title(loc="left")
    plt.close("all")


def test_windows_of_several_steps_are_not_called_steps(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--controller", "none", "--window", 6) == 0
    said = capsys.readouterr().out
    assert "windows 0 to 3 of 4, each the sum of 6 steps\n" in said
    assert "| worst window | moves per window and layer |" in said
    assert "count windows of 6 steps; single steps are served no more evenly than their sums" in said


def test_json_is_whole(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs, controllers = tmp_path / "costs.toml", tmp_path / "c.toml"
    costs.write_text("[costs]\nexpert_bytes = 1e6\nbandwidth = 1e9\nstall = 0.5\n")
    controllers.write_text('[[controller]]\nname = "ours"\nkind = "budgeted"\ninterval = 4\nmoves = 0.2\n')
    given = (
        "--controller",
        controllers,
        "--controller",
        "clairvoyant:interval=4,method=initial_program",
        "--costs",
        costs,
        "--lag",
        1,
        "--warm-up",
        18,
    )
    assert run(*given, "--limit", 4, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["steps"], said["window_steps"], said["first_judged"]) == (24, 1, 18)
    assert (said["interrupted"], said["missing"]) == (False, [])
    budgeted, clairvoyant = said["controllers"]
    assert (
        budgeted["controller"].items()
        >= {"kind": "budgeted", "name": "ours (lag 1)", "interval": 4, "window": None, "moves": 0.2, "lag": 1}.items()
    )
    assert clairvoyant["foresees"]
    assert len(budgeted["by_step"]) == 24
    assert budgeted["waiting_seconds"] > 0
    assert all(change["serves"] - change["decided"] == 1 for change in budgeted["changes"])
    low, high = budgeted["certified_regret"]
    assert high >= 0
    assert low <= high


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--controller", "best"), "kind is 'best'; none, static, periodic, "),
        (("--controller", "periodic:interval=0"), "interval is 0; an integer of at least 1"),
        (("--controller", "periodic:interval=2", "--lag", "3"), "lag is 3; at most the interval"),
        (("--controller", "periodic:interval=50"), "steps has 24 steps; periodic (interval 50) serves its first map on step 50"),
        (("--controller", "periodic:interval=4,window=24"), "serves its first map on step 24"),
        (("--controller", "budgeted:moves=-0.1"), "moves is -0.1; a number from 0 to 1"),
        (("--controller", "budgeted:moves=1.01"), "moves is 1.01; a number from 0 to 1"),
        (("--controller", "unknown.toml"), "controller 1: moved is not a key"),
        (("--controller", "none.toml"), "none.toml does not exist"),
        (("--controller", "none", "--warm-up", "24"), "warm_up is 24; an integer from 0 to 23"),
        (("--controller", "none", "--limit", "0"), "limit is 0"),
        (("--controller", "none", "--costs", "none.toml"), "none.toml does not exist"),
        (("--controller", "none", "--window", "0"), "window is 0"),
        (("--controller", "none", "--gpus", "4"), "num_gpus is 4; a divisor of num_slots = 10"),
        (("--controller", "none", "--deployment", "olmoe-ep16", "--slots", "80", "--gpus", "16"), "8 experts"),
        (("--controller", "none", "--loads", "uneven.npz"), "window_steps is [1, 2"),
        (("--controller", "none", "--figure", "f.txt"), "--figure is f.txt; a name that ends in .pdf, .png, .svg"),
        (("--controller", "none", "--figure", "/proc/f.svg"), "--figure is /proc/f.svg; file /proc/f.svg cannot be written"),
        (("--controller", "none", "--page", "."), "--page is .; file"),
        (("--controller", "none", "--figure", "f.svg", "--page", "f.svg"), "--page is f.svg, which is the file of --figure too"),
        (("--controller", "none", "--page", "./steps.npz"), "--page is steps.npz, which is the file of --loads too"),
        (("--controller", "fine.toml", "--page", "fine.toml"), "--page is fine.toml, which is the file of --controller too"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], message: str
) -> None:
    LoadTrace(STEPS, {"window_steps": [1, 2] * 12}).save("uneven.npz")
    Path("unknown.toml").write_text('[[controller]]\nkind = "budgeted"\nmoved = 0.02\n')
    Path("fine.toml").write_text('[[controller]]\nkind = "none"\n')
    before = sorted(tmp_path.rglob("*"))
    assert run("--page", "new/p.html", *given) == 2
    heard = capsys.readouterr()
    assert heard.out == ""
    assert message in heard.err
    assert len(heard.err.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_written_where_a_page_cannot_be_drawn(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("eplb_gap.analysis.replay_page.render", fail)
    before = sorted(tmp_path.rglob("*"))
    assert run("--controller", "none", "--figure", "f.svg", "--page", "p.html") == 130
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_finished_is_printed_on_ctrl_c(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plain = module.step_makespans
    calls = []

    def stop(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return plain(*arguments)

    given = ("--controller", "static:interval=12,method=initial_program", "--controller", PERIODIC, "--page", "p.html")
    with monkeypatch.context() as patch:
        patch.setattr(module, "step_makespans", stop)
        assert run(*given) == 130
        heard = capsys.readouterr()
        assert "| static (interval 12, method initial_program) |" in heard.out
        assert "interrupted; not finished: periodic (interval 4, method initial_program)" in heard.out
        assert heard.err == "eplb-gap: interrupted\n"
        assert "not finished: periodic" in (tmp_path / "p.html").read_text()
        calls += [1, 1, 1]
        assert run(*given, "--json") == 130
        said = json.loads(capsys.readouterr().out)
        assert (said["controllers"], said["interrupted"], said["files"]) == ([], True, [])
        assert len(said["missing"]) == 2
    assert run(*given, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["controllers"]) == 2
