"""The command line in the process of the tests: no start-up, and parts of it can be replaced."""

from __future__ import annotations

import sys

import pytest

from eplb_gap.cli import main as cli


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str | int | None:
    """Run the command line in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["eplb-gap", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stopped:
        return stopped.code
    return 0
