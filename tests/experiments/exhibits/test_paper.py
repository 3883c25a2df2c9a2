"""The paper says what the rows give, names tests that exist, and compiles."""

from __future__ import annotations

import ast
import csv
import json
import re
from functools import cache

import pytest

from eplb_gap.experiments.exhibits import paper_tables
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.published import paper
from eplb_gap.experiments.studies.numbers import chosen

TEXT = (paper.FOLDER / "paper.typ").read_text()
BODY = TEXT.split("// Text.\n", 1)[1]

NO_MEASUREMENTS = (
    r'"[^"\n]*"',  # names of numbers, files and tests
    r"`[^`\n]*`",  # code and names of load families
    r"[@<][\w-]+>?",  # references and labels
    r"\b[\d.]+(pt|em|cm|fr)\b",  # lengths
    r"width: \d+%",
    r"(raws|lefts): \([\d, ]*\)",
    r"\(\d, \[",  # columns that a heading spans
    r"start: 1|update\(0\)",
)
CONSTANTS = {
    *("256", "8", "288", "32", "4", "144", "58"),  # the deployments and the layers of the calibrated trace
    *("256/288/144", "128/192/64"),  # experts, slots and GPUs of an instance
    *("2", "3"),  # programs by number
    *("1024", "64"),  # slots of the ladder of sizes and of the sweep
    "95",  # level of the intervals
    *("1B-7B", "8x7B", "20B", "24"),  # names of models, layers of one
    *("420", "4,192", "4,200"),  # layers and makespans that an audit compared, which the text calls no measurement of its own
    *(
        "3-partition",
        "105",
        "28",
        "512",
        "2048",
    ),  # a problem's name, partitions and nodes, slots of the profile, tokens of a step
}
IN_FORMULAS = {"0", "1", "2", "3", "4", "5", "7"}


@cache
def published() -> Rows:
    return rows.read_suites(rows.RESULTS)


def test_every_table_that_lies_there_is_drawn():
    assert {path.stem for path in (paper.FOLDER / "tables").iterdir()} == set(paper_tables.TABLES)


def test_no_two_columns_of_a_table_have_one_name():
    for path in (paper.FOLDER / "tables").glob("*.csv"):
        (header, *_) = csv.reader(path.read_text().splitlines())
        assert len(set(header)) == len(header), path.name


def test_every_number_and_table_of_the_text_exists_and_is_used():
    assert set(re.findall(r'#n\("([^"]*)"\)', TEXT)) == set(json.loads((paper.FOLDER / "numbers.json").read_text()))
    assert set(re.findall(r'data\("([^"]*)"', BODY)) == set(paper_tables.TABLES)


def test_a_number_says_which_rows_it_came_from_and_sees_no_others():
    number = json.loads((paper.FOLDER / "numbers.json").read_text())["gap-calibrated-hierarchical"]
    assert number["from"] == [
        "heuristics | calibrated hierarchical | initial_program",
        "heuristics | calibrated hierarchical | auto",
    ]
    assert number["script"] == "experiments/studies/head_to_head.py"
    seen = chosen(published(), [("heuristics", "calibrated *", "fast")])
    assert {(row["instance"], row["method"]) for row in seen} == {(f"calibrated {p}", "fast") for p in ("global", "hierarchical")}
    with pytest.raises(LookupError, match=r"no row of gap \| flashlb \| nobody"):
        chosen(published(), [("gap", "flashlb", "auto"), ("gap", "flashlb", "nobody")])


def typed_numbers(body: str) -> set[str]:
    """Return the numbers that stand in prose or formulas of the paper, without those that can be no measurement."""
    for pattern in NO_MEASUREMENTS:
        body = re.sub(pattern, "", body)
    formulas = re.findall(r"\$[^$]*\$", body)
    prose = re.sub(r"\$[^$]*\$", "", body)
    found = set(re.findall(r"\d[\w./,-]*\w|\d", prose)) - CONSTANTS
    return found | {number for text in formulas for number in re.findall(r"\d+(?:\.\d+)?|\.\d+", text)} - IN_FORMULAS


def test_no_measured_number_is_typed():
    assert typed_numbers(BODY) == set()
    # The rule can fail: percentages, decimals, counts, in prose and in formulas.
    for typed in ("2.5 %", "it is .51", "of 220 instances", "$T = 1.5$", "12 ms", "$91$ layers"):
        assert typed_numbers(BODY + typed), typed


def test_every_statement_names_tests_that_exist():
    statements = re.findall(r'#statement\("\w+", \[([^\]]*)\], \(([^\n]*?)\)\)\[\n', BODY)
    assert len(statements) == BODY.count("#statement(") >= 12
    for title, tests in statements:
        named = re.findall(r'"(tests/[\w/]+\.py)::(\w+)"', tests)
        assert named, title
        for file, test in named:
            tree = ast.parse((rows.ROOT / file).read_text())
            assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"
    mentioned = set(re.findall(r"`(test_\w+)`", BODY))
    assert all(any(f"def {name}(" in path.read_text() for path in (rows.ROOT / "tests").rglob("*.py")) for name in mentioned)


def test_every_reference_is_cited_and_every_citation_has_one():
    keys = set(re.findall(r"^@\w+\{(\w+),", (paper.FOLDER / "references.bib").read_text(), re.MULTILINE))
    labels = set(re.findall(r"<([\w-]+)>", BODY))
    assert set(re.findall(r"@([\w-]+)", BODY)) - labels == keys


def test_it_compiles_to_the_same_eight_to_twelve_pages_without_a_warning():
    import typst

    pdf, warnings = paper.compile_pdf()
    assert warnings == []
    # The text; references and appendices, with proofs and the list of tests, come behind it.
    source = paper.FOLDER / "paper.typ"
    (last,) = json.loads(typst.query(str(source), "<last-page>", root=str(paper.FOLDER), field="value", ignore_system_fonts=True))
    assert 8 <= last <= 12
    assert last < len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 18
    assert paper.compile_pdf()[0] == pdf


def test_a_missing_number_stops_the_compilation(tmp_path):
    import typst

    for name in ("references.bib", "tables", "figures"):
        (tmp_path / name).symlink_to(paper.FOLDER / name)
    numbers = json.loads((paper.FOLDER / "numbers.json").read_text())
    numbers.pop("gap-fast")
    (tmp_path / "numbers.json").write_text(json.dumps(numbers))
    (tmp_path / "paper.typ").write_text(TEXT)
    with pytest.raises(typst.TypstError, match="gap-fast"):
        paper.compile_pdf(tmp_path / "paper.typ")
