"""Dead GPUs: the study's rows come out as they were published, hashes included."""

from __future__ import annotations

import pytest

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.studies.elastic import SUITE, cells

PUBLISHED = {(row["instance"], row["method"]): row for row in rows.read(rows.RESULTS / f"{SUITE}.ndjson")}


@pytest.mark.parametrize("dead", [0, 4])
def test_rows_are_those_that_were_published(dead: int) -> None:
    cell = next(cell for cell in cells() if cell.instance.endswith(f" {dead} dead") and cell.method == "fast")
    published = PUBLISHED[cell.instance, cell.method]
    assert cell.function(**cell.arguments) == {
        key: published[key] for key in ("kind", "hash", "parameters", "status", "gaps", "served")
    }
