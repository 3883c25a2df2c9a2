from __future__ import annotations

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import failure_row
from eplb_gap.experiments.published.status import status
from eplb_gap.experiments.studies import gaps, jobs, protocol


def test_cells_are_done_failed_or_missing(tmp_path):
    path, (first, second, third, fourth, *others) = tmp_path / "protocol.ndjson", protocol.cells()
    ended = {**failure_row(first, "legal"), "kind": "heuristic"}
    rows.append(path, ended)
    rows.append(path, failure_row(second, "timed out after 1 s"))
    rows.append(path, {**failure_row(third, "killed by signal 9"), "code": "another"})
    rows.append(path, failure_row(fourth, "killed by signal 9"))
    rows.append(path, {**failure_row(fourth, "legal"), "kind": "heuristic"})
    counts = status(tmp_path)
    assert counts["protocol"] == {
        "job": "reproduce",
        "done": 2,
        "failed": 1,
        "missing": 1 + len(others),
        "cells": 4 + len(others),
    }
    assert counts["gap"]["missing"] == len(gaps.cells())
    assert {count["job"] for count in counts.values()} == set(jobs.cells())
