"""The front of moves against balance: what a cell measures and what the table says of it."""

from __future__ import annotations

import numpy as np
import pytest

from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.studies import migration as migration_front
from eplb_gap.experiments.studies.migration import (
    ASKED_SHARE,
    FULL,
    SLOW,
    cells,
    drifting,
    kept_part,
    migration_cell,
    table,
)


def test_the_windows_are_those_that_drift_slowly():
    for name, (first, last) in SLOW.items():
        loads = drifting(name).loads
        assert len(loads) == last - first + 1
        shares = loads / loads.sum(axis=2, keepdims=True)
        assert np.abs(np.diff(shares, axis=0)).sum(axis=2).mean(axis=1).max() / 2 < 0.2


def test_a_cell_counts_within_its_share_and_no_moves_keep_the_map(monkeypatch):
    monkeypatch.setattr(migration_front, "drifting", lambda name: type("Trace", (), {"loads": drifting(name).loads[:, :2]}))
    none, some, full = (migration_cell("recorded", "hierarchical", share) for share in (0, ASKED_SHARE, None))
    assert none["moved"] == [0, 0]
    assert none["new"] == none["kept"]
    assert 0 < max(some["moved"]) <= some["replicas"] * ASKED_SHARE // 100 < min(full["moved"])
    assert full["new"] == full["full"]
    assert kept_part(none) == 0.0
    assert kept_part(full) == 1.0


def row(cell, new):
    values = {"kept": [0.5, 0.7], "full": [0.8, 0.8], "new": [new, new], "planned": [0.9, 0.9], "moved": [4, 6], "replicas": 100}
    return Row({**cell.key._asdict(), **values})


def test_the_table_states_the_least_part_that_is_kept():
    measured = Rows(row(cell, 0.8 if cell.method == FULL else 0.76) for cell in cells())
    text = table(measured)
    assert "Asked: with 10 % at least 80 %; measured: 80 % or more." in text
    assert "| recorded hierarchical | 5 % | 5.0 % | 0.9000 | 0.7600 | 0.6000 | 0.8000 | 80 % |" in text
    assert len(measured) == len({cell.key for cell in cells()})
    assert kept_part(measured[0]) == pytest.approx(0.8)
