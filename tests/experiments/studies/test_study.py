"""Every study says all of itself in its own file, and nothing else needs to know it."""

from __future__ import annotations

from collections import Counter

import pytest

from eplb_gap.experiments.exhibits import exhibits
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.studies import schema
from eplb_gap.experiments.studies.catalogue import STUDIES
from eplb_gap.experiments.studies.jobs import JOBS

MEASURED = {module: study for module, study in STUDIES.items() if study.shapes}
OF_MANY_INSTANCES = {
    "agreement",
    "counts",
    "public_control",
    "public_gaps",
    "public_levels",
    "public_routing",
    "public_serving",
    "sample_average_gaps",
    "timed_maps",
}


def test_a_study_belongs_to_a_job_and_says_what_it_is():
    assert {study.job for study in STUDIES.values()} == set(JOBS)
    assert all(study.about for study in MEASURED.values())


@pytest.mark.parametrize("module", MEASURED)
def test_a_study_that_measures_makes_keys_of_its_suite_has_a_text_and_a_maker_of_its_instances(module):
    study = MEASURED[module]
    keys = [*(cell.key for cell in study.cells()), *(key for timing in study.timings() for key in timing.keys)]
    assert {key.suite for key in keys} == {study.suite}
    assert study.table or study.levels
    assert bool(study.instance) == bool(study.cells()) - (module in OF_MANY_INSTANCES)


@pytest.mark.parametrize("module", [module for module, study in MEASURED.items() if study.instance])
def test_the_first_row_of_every_study_is_of_the_instance_that_its_cell_names(module):
    study = STUDIES[module]
    cell = study.cells()[0]
    row = rows.read(rows.RESULTS / f"{study.suite}.ndjson").one(**cell.key._asdict())
    loads, deployment = study.instance(**cell.arguments)
    assert rows.instance_hash(loads, study.hashed(deployment)) == row["hash"]


def test_a_study_without_rows_of_its_own_draws_from_those_of_others():
    apart = {module: study for module, study in STUDIES.items() if not study.shapes}
    assert set(apart) == {"losses", "policy_times", "time_answers", "verifiable"}
    assert not any(study.cells() or study.timings() for study in apart.values())


def test_no_two_studies_name_a_number_a_figure_or_a_block_alike():
    for names in (
        [name for study in STUDIES.values() for name in study.numbers],
        [name for study in STUDIES.values() for name in study.figures],
        [name for study in STUDIES.values() for name in study.blocks],
    ):
        assert max(Counter(names).values()) == 1


def test_a_study_is_drawn_from_its_own_suite():
    for study in STUDIES.values():
        assert {suite for number in study.numbers.values() for suite, _, _ in number.patterns} <= {study.suite}


def test_what_is_drawn_is_what_the_studies_declare():
    assert {figure.name for figure in exhibits.FIGURES} == {name for study in STUDIES.values() for name in study.figures}
    assert set(exhibits.BLOCKS) - {"replicating"} == {name for study in STUDIES.values() for name in study.blocks}
    assert all((rows.ROOT / figure.script).is_file() for figure in exhibits.FIGURES)
    assert all((rows.ROOT / text.script).is_file() for text in (*exhibits.TEXTS.values(), *exhibits.BLOCKS.values()))


def test_every_suite_of_the_rows_is_in_the_schema_once():
    lines = schema.table().splitlines()[3:]
    said = [(suite, line) for line in lines for suite in line.split("|")[1].strip().split(", ")]
    assert {suite for suite, _ in said} == {study.suite for study in MEASURED.values()}
    assert len(said) == sum(len(study.shapes) for study in MEASURED.values())
