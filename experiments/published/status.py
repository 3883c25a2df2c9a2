"""How far the measurements in a folder are: cells done, failed and missing, suite by suite."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.studies import jobs


def status(folder: Path) -> dict[str, dict[str, Any]]:
    """Return for every suite its job and how many of its cells are done, failed and missing at this revision.

    Parameters
    ----------
    folder : Path
        With rows of any revision.
    """
    revision = rows.environment()["revision"]
    found = rows.read_suites(folder)
    done = rows.done(found)
    failed = {rows.key(row) for row in found if row["revision"] == revision and rows.failed(row)}
    counts = {}
    for job, keys in jobs.keys().items():
        for suite, cells in Counter(key[0] for key in keys).items():
            of_suite = [key for key in keys if key[0] == suite]
            good, bad = (sum(key in among for key in of_suite) for among in (done, failed))
            counts[suite] = {"job": job, "done": good, "failed": bad, "missing": cells - good - bad, "cells": cells}
    return counts
