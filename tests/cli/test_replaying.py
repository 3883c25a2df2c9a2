"""``replay`` as its user meets it: table, JSON, figure and page, one error for bad input, what is done kept on Ctrl-C."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eplb_gap.analysis.replay import replay as module
from eplb_gap.cli import main as cli
from eplb_gap.problem import LoadTrace

STEPS = np.random.default_rng(5).integers(1, 90, (24, 2, 8))
SHAPE = ("--slots", "10", "--gpus", "5")
Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    path = tmp_path / "steps.npz"
    LoadTrace(STEPS).save(path)

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
    figure, page = tmp_path / "new" / "f.svg", tmp_path / "p.html"
    given = ("--controller", "none", "--controller", "periodic:interval=4", "--limit", 4, "--figure", figure, "--page", page)
    assert run(*given) == 0
    said = capsys.readouterr().out
    assert "| none |" in said
    assert "| periodic (interval 4) |" in said
    assert "no controller that changes its maps every 4 steps serves more than" in said
    assert figure.read_text().lstrip().startswith("<?xml")
    written = page.read_text()
    assert "periodic (interval 4)" in written
    assert "<script" not in written
    assert "http" not in written.replace("http://www.w3.org", "").replace("http://creativecommons.org", "").replace(
        "http://purl.org", ""
    )


def test_json_is_whole(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs, controllers = tmp_path / "costs.toml", tmp_path / "c.toml"
    costs.write_text("[costs]\nexpert_bytes = 1e6\nbandwidth = 1e9\nstall = 0.5\n")
    controllers.write_text('[[controller]]\nkind = "budgeted"\ninterval = 4\nmoves = 0.2\n')
    given = ("--controller", controllers, "--controller", "clairvoyant:interval=4", "--costs", costs, "--lag", 1, "--warm-up", 8)
    assert run(*given, "--limit", 2, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["steps"], said["first_judged"], said["interrupted"]) == (24, 8, False)
    budgeted, clairvoyant = said["controllers"]
    assert budgeted["controller"]["moves"] == 0.2
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
        (("--controller", "best"), "kind is 'best'"),
        (("--controller", "periodic:interval=0"), "interval is 0"),
        (("--controller", "periodic:interval=2", "--lag", "3"), "lag is 3; at most the interval"),
        (("--controller", "periodic:interval=50"), "steps has 24 steps"),
        (("--controller", "none.toml"), "none.toml does not exist"),
        (("--controller", "none", "--warm-up", "24"), "warm_up is 24"),
        (("--controller", "none", "--limit", "0"), "limit is 0"),
        (("--controller", "none", "--figure", "f.txt"), "--figure is f.txt"),
        (("--controller", "none", "--costs", "none.toml"), "none.toml does not exist"),
        (("--controller", "none", "--window", "0"), "window is 0"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], message: str
) -> None:
    page = tmp_path / "p.html"
    assert run(*given, "--page", page) == 2
    heard = capsys.readouterr()
    assert heard.out == ""
    assert message in heard.err
    assert len(heard.err.strip().splitlines()) == 1
    assert not page.exists()


def test_what_is_finished_is_printed_on_ctrl_c(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = module.step_makespans
    calls = []

    def stop(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(module, "step_makespans", stop)
    assert run("--controller", "periodic:interval=12", "--controller", "periodic:interval=2") == 130
    said = capsys.readouterr().out
    assert "| periodic (interval 12) |" in said
    assert "interrupted; controllers that were not finished are missing" in said
