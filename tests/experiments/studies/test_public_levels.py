"""Levels on counts that only some users have: without them nothing fails, with them every bound is there."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap.experiments.loads.public_counts import COUNTS, DECODED, SOURCES, VARIABLE, public_counts
from eplb_gap.experiments.measuring.cell import failure_row
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.published import row_proofs
from eplb_gap.experiments.studies import public_levels, schema
from eplb_gap.problem import InputError
from eplb_gap.problem.digest import array_sha256


@pytest.fixture
def folder(tmp_path):
    """Files of the same form, with made-up counts."""
    generator = np.random.default_rng(5)
    made = {
        key: generator.integers(1, 900, size=(5, 3, experts)).tolist()
        for key, experts in (("olmoe_1b_7b_64", 64), ("mixtral_8x7b_8", 8))
    }
    (tmp_path / COUNTS).write_text(json.dumps(made))
    (tmp_path / DECODED).parent.mkdir()
    np.savez(
        tmp_path / DECODED, counts=generator.integers(1, 900, size=(11, 24, 32)).astype(np.int32), dataset=np.array(["a"] * 11)
    )
    return tmp_path


def row(cell, fields):
    environment = failure_row(cell, "")
    return Row({**environment, **fields, "cell_wall_seconds": 1.0, "cell_cpu_seconds": 1.0})


def test_without_a_folder_the_row_says_so_and_nothing_fails(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    found = Rows(row(cell, cell.function(**cell.arguments)) for cell in public_levels.cells())
    assert len(found) == len(SOURCES) == 3
    assert [problem for one in found for problem in schema.problems(one)] == []
    assert row_proofs.problems(found) == []
    lines = public_levels.table(found).splitlines()[-3:]
    assert all("| not given | - |" in line for line in lines)


def test_with_a_folder_every_layer_is_measured(monkeypatch, folder):
    monkeypatch.setenv(VARIABLE, str(folder))
    cells = public_levels.cells()
    assert {cell.arguments["folder"] for cell in cells} == {str(folder)}
    cell = next(cell for cell in cells if cell.arguments["model"] == "Mixtral-8x7B")
    found = row(cell, cell.function(**cell.arguments))
    loads = public_counts("Mixtral-8x7B", folder)
    assert found["sha256"] == array_sha256(loads)
    assert found["status"] == ["optimal"] * 15 and found["gap"] == [0.0] * 15 and len(found["proof"]) == 15
    assert all(Fraction(up) * 8 >= layer.sum() for up, layer in zip(found["upper"], loads, strict=True))
    assert schema.problems(found) == [] and row_proofs.problems(Rows([found])) == []
    others = [row(cell, public_levels.public_cell(cell.arguments["model"], None)) for cell in cells]
    drawn = public_levels.table(Rows([found, *others]))
    assert "15/15 layers, 0 on a claim, worst gap 0.0000 %" in drawn and drawn.count("not given") == 2


def test_a_gap_that_is_not_reached_is_not_met(folder):
    fields = public_levels.public_cell("Mixtral-8x7B", str(folder))
    cells = {cell.arguments["model"]: cell for cell in public_levels.cells()}
    others = [row(cell, public_levels.public_cell(model, None)) for model, cell in cells.items() if model != "Mixtral-8x7B"]
    for changed, met in (({}, "yes"), ({"gap": [0.0] * 14 + [0.002]}, "no"), ({"seconds": [99.0] * 15}, "no")):
        drawn = public_levels.table(Rows([row(cells["Mixtral-8x7B"], fields | changed), *others]))
        assert next(line for line in drawn.splitlines() if "Mixtral" in line).endswith(f"| {met} |")


def test_shapes_of_the_counts(folder):
    assert [public_counts(model, folder).shape for model in SOURCES] == [(15, 64), (15, 8), (8, 32)]


def test_files_that_are_missing_or_hold_something_else_are_one_clear_error(tmp_path):
    with pytest.raises(InputError, match=r"real_counts\.json does not exist"):
        public_counts("OLMoE-1B-7B", tmp_path)
    with pytest.raises(InputError, match=r"by_dataset\.npz"):
        public_counts("GPT-OSS-20B", tmp_path)
    (tmp_path / COUNTS).write_text("[]")
    with pytest.raises(InputError, match="olmoe_1b_7b_64"):
        public_counts("OLMoE-1B-7B", tmp_path)
