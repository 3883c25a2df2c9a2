"""Gaps on counts that only some users have: without them nothing fails, with them every program is held against a bound."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap.experiments.exhibits.figures import public_gaps as drawing
from eplb_gap.experiments.loads.public_counts import COUNTS, DECODED, VARIABLE
from eplb_gap.experiments.measuring.cell import failure_row
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.published import row_proofs
from eplb_gap.experiments.studies import public_gaps, schema
from eplb_gap.experiments.studies.numbers import chosen
from eplb_gap.experiments.studies.public_gaps import BASE, METHODS, NOT_GIVEN, STUDY
from eplb_gap.problem import InputError
from eplb_gap.problem.digest import array_sha256

COUNTED = np.random.default_rng(6).integers(1, 900, size=(5, 3, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file of the same form, with made-up counts."""
    made = tmp_path_factory.mktemp("loads")
    (made / COUNTS).write_text(json.dumps({"mixtral_8x7b_8": COUNTED.tolist()}))
    return made


@pytest.fixture(scope="module")
def measured(folder):
    return public_gaps.public_cell("Mixtral-8x7B", 5, str(folder))


def row(cell, fields):
    return Row({**failure_row(cell, ""), **fields, "cell_wall_seconds": 1.0, "cell_cpu_seconds": 1.0})


def without(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    return Rows(row(cell, cell.function(**cell.arguments)) for cell in public_gaps.cells())


def texts(found):
    return [STUDY.table(found), STUDY.blocks["public gaps"].render(found), *(n.compute(found) for n in STUDY.numbers.values())]


def test_without_a_folder_every_text_says_so_and_nothing_fails(monkeypatch, tmp_path):
    found = without(monkeypatch)
    assert len(found) == 9 and {one["status"] for one in found} == {NOT_GIVEN}
    assert [problem for one in found for problem in schema.problems(one)] == row_proofs.problems(found) == []
    assert all(NOT_GIVEN in text.lower() for text in texts(found))
    assert all(path.stat().st_size for path in drawing.draw(found, tmp_path))


def test_a_row_holds_every_program_against_a_proven_bound(measured):
    cell = next(c for c in public_gaps.cells() if c.arguments["model"] == "Mixtral-8x7B" and c.arguments["slots"] == 5)
    found = row(cell, measured)
    assert schema.problems(found) == [] and row_proofs.problems(Rows([found])) == []
    assert found["sha256"] == array_sha256(COUNTED.reshape(15, 8)) and found["families"] == 5
    assert list(found["programs"]) == list(METHODS) and len(METHODS) >= 12
    assert all(min(public_gaps.gaps(found, method)) >= 0 for method in METHODS)
    assert sum(public_gaps.gaps(found, BASE)) > sum(public_gaps.gaps(found, "fast")) > 0
    below = {**measured, "programs": {**measured["programs"], BASE: ["1/1"] * 15}}
    assert "is below the bound" in row_proofs.problems(Rows([row(cell, below)]))[0]


def test_texts_are_of_the_rows_that_they_name(monkeypatch, measured):
    """DeepSeek's makespans are set a known part above the bounds, another part in every row."""
    monkeypatch.delenv(VARIABLE, raising=False)
    lower = [Fraction(text) for text in measured["lower"]]
    found = Rows()
    for place, cell in enumerate(public_gaps.cells(), start=1):
        above = [str(low * (1 + Fraction(place, 100) * (2 if layer == 0 else 1))) for layer, low in enumerate(lower)]
        found.append(row(cell, {**measured, "programs": {**measured["programs"], BASE: above}}))
    means = [place * 16 / 15 for place in range(1, 10)]
    said = {name: number.compute(chosen(found, number.patterns)) for name, number in STUDY.numbers.items()}
    assert {name: text for name, text in said.items() if "fast" not in name} == {
        "public-gap-five": f"{means[0]:.1f}",
        "public-gap-three": f"{means[1]:.1f}",
        "public-gap-two": f"{means[2]:.1f}",
        "public-gap-worst": "6",
        "public-gap-others": f"{means[3]:.1f} to {means[8]:.1f}",
    }
    assert "| OLMoE-1B-7B 64/96/32 | 3 | 2.1 / 4.0 |" in STUDY.blocks["public gaps"].render(found)
    line = next(line for line in STUDY.table(found).splitlines() if line.startswith(f"| OLMoE-1B-7B 64/80/16, `{BASE}`"))
    assert line.split(" | ")[1:6] == ["15", "1.07", "1.00", "2.00", "1.3 / 1.0 / 1.0 / 1.0 / 1.0"]


def test_families_of_the_counts(folder, tmp_path):
    assert (public_gaps.families("Mixtral-8x7B", folder) == COUNTED).all()
    counts = np.random.default_rng(7).integers(0, 9, size=(11, 24, 32))
    (tmp_path / DECODED).parent.mkdir()
    np.savez(tmp_path / DECODED, counts=counts)
    assert (public_gaps.families("GPT-OSS-20B", tmp_path) == counts.sum(axis=0)[None]).all()
    with pytest.raises(InputError, match=r"real_counts\.json does not exist"):
        public_gaps.families("OLMoE-1B-7B", tmp_path)
