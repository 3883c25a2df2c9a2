"""One parser of fractions for all files: plain digits, nothing that could take long."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.problem import InputError
from eplb_gap.problem.fractions import MAX_CHARACTERS, fraction, parse

ROOT = Path(__file__).resolve().parents[2]


@given(st.fractions())
def test_what_is_written_is_read_back(value):
    assert parse(fraction(value), signed=True) == value


@pytest.mark.parametrize(
    "text",
    [
        *("1e999999999", "1/0", "0/0", "-1/2", "+1", "nan", "inf", "1.5", " 1", "1/2 ", "1_0", "1/-2", "1//2", "", "/"),
        *("2/4", "3/3", "0/5", "07", "1/02", "-0", "00"),
        *("\u0661", "\u00b2", 7, 1.5, None, True, "9" * (MAX_CHARACTERS + 1)),
    ],
)
def test_nothing_else_is_read(text):
    with pytest.raises(InputError, match=r"the threshold is .*; a fraction like"):
        parse(text, "the threshold")


def test_no_module_reads_a_text_of_a_file_as_a_fraction_itself():
    """``Fraction(witness["..."])`` is how "1e999999999" got in."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for room in ("problem", "solvers")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Fraction" and len(node.args) == 1
        if isinstance(node.args[0], ast.Subscript) and isinstance(node.args[0].slice, ast.Constant)
        if isinstance(node.args[0].slice.value, str)
    ]
    assert found == []
