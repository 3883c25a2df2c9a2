"""How far the measurements in a folder are: cells done, failed and missing, suite by suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.studies import jobs


def status(folder: Path) -> dict[str, dict[str, Any]]:
    """Return for every suite its job and how many of its cells are done, failed and missing, by the code as it is now.

    Parameters
    ----------
    folder : Path
        With rows of any code.
    """
    found = rows.read_suites(folder)
    counts = {}
    for job, codes in jobs.codes().items():
        done = rows.done(found, codes)
        failed = {row.key for row in found if row.failed and row.get("code") == codes.get(row.key)}
        for suite in dict.fromkeys(key.suite for key in codes):
            keys = [key for key in codes if key.suite == suite]
            good, bad = (sum(key in among for key in keys) for among in (done, failed))
            counts[suite] = {"job": job, "done": good, "failed": bad, "missing": len(keys) - good - bad, "cells": len(keys)}
    return counts
