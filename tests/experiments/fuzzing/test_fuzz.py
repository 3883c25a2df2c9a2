from __future__ import annotations

from pathlib import Path

import pytest

from eplb_gap.experiments.fuzzing import fuzz
from eplb_gap.problem.formats import LOAD_FORMATS, MAP_FORMATS
from eplb_gap.problem.formats.routing.reading import FORMATS as ROUTING_FORMATS


def test_every_format_is_fuzzed_with_a_sample_that_is_read(tmp_path: Path) -> None:
    cases = fuzz.cases()
    assert {case.format for case in cases.values()} == {*LOAD_FORMATS, *MAP_FORMATS, *ROUTING_FORMATS}
    for case in cases.values():
        assert fuzz.trial(case, case.files, case.format, tmp_path) == ("read", "")
        assert list(tmp_path.iterdir()) == []


LEAVES_OUT = {"loads eplb-gap-record:calls"}
"""Of many files a damaged one is left out, and it is said."""


@pytest.mark.parametrize("name", fuzz.cases())
def test_damaged_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    case = fuzz.cases()[name]
    outcomes = []
    for index in range(150 if not case.slow else 8 if name.startswith("loads") else 2):  # of one process two readers
        files, format = fuzz.damaged(case, 2, index)
        outcome, why = fuzz.trial(case, files, format, tmp_path)
        assert outcome != "crash", (index, why)
        outcomes.append(outcome)
    assert "refused" in outcomes or name in LEAVES_OUT


def test_damage_is_the_same_for_the_same_numbers() -> None:
    case = fuzz.cases()["loads adrs"]
    assert fuzz.damaged(case, 0, 3) == fuzz.damaged(case, 0, 3)
    assert len({str(fuzz.damaged(case, 0, index)) for index in range(50)}) > 40


def broken(path: Path, format: str | None) -> object:
    raise KeyError(f"bug in {format}")


def test_another_error_is_a_crash(tmp_path: Path) -> None:
    case = fuzz.Case("broken", {"file": b"content"}, False, broken, "any")
    assert fuzz.trial(case, case.files, "any", tmp_path) == ("crash", "KeyError: 'bug in any'")


def test_a_process_runs_all_trials() -> None:
    outcomes, crashes = fuzz.run("loads npy", 0, 40)
    assert outcomes.total() == 40
    assert crashes == []
