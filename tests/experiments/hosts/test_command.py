"""Command lines of the tools for released packages: help starts nothing, and a slip is refused in one line."""

from __future__ import annotations

import pytest

from eplb_gap.experiments.hosts import packages, peers_check, resolve

TOOLS = (packages, peers_check, resolve)


@pytest.fixture(autouse=True)
def idle(monkeypatch):
    """Let every piece of real work fail the test."""
    for tool, name in ((packages, "unpacked"), (peers_check, "check_apart"), (peers_check, "check_one"), (resolve, "beside")):
        monkeypatch.setattr(tool, name, lambda *given: pytest.fail("the real work began"))


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__.rpartition(".")[2])
def test_help_and_slips_end_before_any_work(tool, capsys):
    with pytest.raises(SystemExit) as ended:
        tool.main(["--help"])
    said = capsys.readouterr()
    assert ended.value.code == 0 and tool.__name__ in said.out and not said.err
    slips = [["--tpyo"], ["tpyo"], *([["--one", "x"], ["--one", "99"], ["--only", "tpyo"]] if tool is peers_check else [])]
    for slip in slips:
        with pytest.raises(SystemExit) as ended:
            tool.main(slip)
        said = capsys.readouterr()
        assert ended.value.code == 2 and not said.out
        [line] = said.err.splitlines()
        assert slip[-1] in line


def test_one_host_or_opponent_can_be_named(monkeypatch, capsys):
    monkeypatch.setattr(packages, "unpacked", lambda release: f"folder of {release.version}")
    assert packages.main(["vllm==0.24.0"]) == 0
    assert capsys.readouterr().out == "vllm==0.24.0  folder of 0.24.0\n"
    asked = []
    monkeypatch.setattr(peers_check, "unpacked", lambda release: None)
    monkeypatch.setattr(peers_check, "check_apart", lambda number: asked.append(peers_check.ORIGINALS[number].name) or "not now")
    assert peers_check.main(["--only", "swift-balance"]) == 1
    assert asked == ["SwiftBalance"]
