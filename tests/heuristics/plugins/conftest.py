"""Every test of a plug-in is a server of its own: no settings, nothing read, nothing remembered, nothing said."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eplb_gap.heuristics.plugins import SETTINGS, hosted, planning, settings
from eplb_gap.heuristics.plugins.guard import COMPLAINTS


@pytest.fixture(autouse=True)
def a_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hosted, "MODELS", {})
    monkeypatch.setattr(planning, "SERVED", {})
    settings.forget()
    COMPLAINTS.forget()
    yield
    settings.forget()


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch):
    """Return what sets variables and lets the next call read them, as in a server that is started anew."""

    def ask(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        settings.forget()

    return ask
