from __future__ import annotations

from fractions import Fraction

import pytest

from eplb_gap.experiments.exhibits.figures import regime_gaps
from eplb_gap.experiments.loads.synthetic import family_loads
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.studies import regimes
from eplb_gap.experiments.studies.schema import problems
from eplb_gap.problem.deployment import PRESETS

COMMON = {"seed": 0, "hash": "h", "parameters": {}, "versions": {}, "revision": "r", "cpu": "c", "cores": 1, "timestamp": "t"}
COMMON |= {"cell_wall_seconds": 0.0, "cell_cpu_seconds": 0.0, "suite": regimes.SUITE}


@pytest.fixture(scope="module")
def cells():
    return regimes.cells()


def test_every_cell_has_a_name_of_its_own_and_every_preset_is_asked(cells):
    assert len({cell.key for cell in cells}) == len(cells)
    asked = {cell.arguments["name"] for cell in cells}
    assert set(PRESETS) - {regimes.EXAMPLE} <= asked
    sizes = {regimes.DEPLOYMENTS[name].num_slots for name in asked}
    assert min(sizes) == 8
    assert max(sizes) == 1024


def test_every_instance_has_a_bound(cells):
    instances = {cell.instance for cell in cells}
    assert {cell.instance for cell in cells if cell.method == regimes.SOLVER} == instances


def test_all_regimes_are_there_more_than_once():
    found = [regimes.regime(Row({"policy": d.policy, "deployment": vars(d)})) for d in regimes.DEPLOYMENTS.values()]
    assert all(found.count(name) > 1 for name in regimes.REGIMES)


@pytest.mark.parametrize(
    ("name", "family", "written"),
    [
        ("6/8/8", "flat", "15c0b6ed67589614"),
        ("12/16/4", "hot", "b06e8e152b30b6f9"),
        ("dsv3-prefill-ep32", "drifting", "285243f09374b712"),
        ("896/1024/128", "zipf1.2", "c937954b0fd62604"),
        ("dsv3-decode-ep144", "recorded", "babcff457c821b48"),
        ("mixtral-ep8", "ln1.0", "3713e939149dc20f"),
    ],
)
def test_instances_stay_what_they_are(name, family, written):
    asked = regimes.question(name, family)
    assert rows.instance_hash(asked.loads, asked.deployment) == written


@pytest.mark.parametrize("experts", [64, 256, 896])
def test_families_are_graded(experts):
    def skew(family):
        return sum((of := family_loads(family, experts, 10**6, seed)).max() / of.mean() for seed in range(4))

    graded = [skew(family) for family in ("flat", "ln.3", "ln.6", "ln1.0")]
    assert graded == sorted(set(graded))
    assert skew("zipf.8") < skew("zipf1.2")


def test_only_loads_that_go_on_have_a_next_window():
    name = "gb200-ep36"
    asked = regimes.families(regimes.DEPLOYMENTS[name])
    assert {family for family in asked if regimes.question(name, family).following is not None} == {
        "drifting",
        "recorded",
        "calibrated",
    }


def _run(function, key, **arguments):
    row = function(**arguments)
    found = {**COMMON, **row, "instance": f"{arguments['name']} {arguments['family']}", "method": key}
    assert problems(found) == []
    return found


@pytest.mark.parametrize("family", ["hot", "drifting"])
def test_the_rows_of_a_small_instance(family):
    at = {"name": "6/8/4", "family": family}
    solved = _run(regimes.certified_cell, "auto", **at, duplicates="allowed")
    forbidden = _run(regimes.certified_cell, regimes.FORBIDDEN, **at, duplicates="forbidden")
    planned = _run(regimes.heuristic_cell, "initial_program", **at, method="initial_program")
    for low, up, other, dear in zip(solved["lower"], solved["upper"], planned["upper"], forbidden["upper"], strict=True):
        assert Fraction(low) <= Fraction(up) <= Fraction(dear)
        assert Fraction(low) <= Fraction(other)
    assert min(solved["gap"]) >= 0
    assert ("serving" in planned) == ("serving" in solved) == (family == "drifting")


def _row(instance, method, upper, lower=None, **more):
    fields = {
        "suite": regimes.SUITE,
        "instance": instance,
        "method": method,
        "kind": "heuristic" if lower is None else "solver",
        "policy": "global",
        "family": "flat",
        "deployment": {"num_slots": 8, "num_gpus": 4},
        "status": "legal" if upper else "illegal: a slot is empty",
        "upper": upper,
        **({} if lower is None else {"lower": lower}),
        **more,
    }
    return Row(fields)


@pytest.fixture
def measured():
    solved = {"gap": [0.0, 0.0], "status": ["optimal"] * 2, "wall_seconds": 0.5, "proof": ["mean", "claim of HiGHS"]}
    found = [
        _row("a", "auto", ["10/1", "10/1"], ["10/1", "10/1"], **solved),
        _row("b", "auto", ["10/1", "10/1"], ["10/1", "10/1"], **solved),
        _row("a", regimes.FORBIDDEN, ["12/1", "10/1"], ["11/1", "10/1"], **solved),
        _row("a", "good", ["10/1", "11/1"]),
        _row("b", "good", ["10/1", "13/1"]),
        _row("a", "broken", ["10/1", "20/1"]),
        _row("b", "broken", None),
        _row("a", "initial_program", ["10/1", "12/1"]),
        _row("b", "initial_program", ["10/1", "12/1"]),
    ]
    return Rows(found)


def test_the_table_says_what_the_rows_imply(measured):
    text = regimes.table(measured)
    first, families, against, certified = (
        {line.split("|")[1].strip(): line for line in part.splitlines() if line.startswith("| ")} for part in text.split("###")
    )
    assert "5.000 / 10.000 / 30.00; 2/4" in first["`good`"]
    assert "50.000 / 50.000 / 100.00; 1/2" in first["`broken`"]
    assert "`broken` 1 of 2 instances" in text
    assert families
    assert "`good` 0" not in text
    # Paired: good has 5 % on a and 15 % on b, the base 10 % on both; broken has a legal map of a alone.
    assert "+0.000; +0.00; 1 / 0 / 1" in against["`good`"]
    assert "+40.000; +1.00; 0 / 0 / 1" in against["`broken`"]
    assert "2/4, 2 claimed" in certified["2 slots"]
    assert "5.000 to 10.000 (1 instances)" in certified["2 slots"]


def test_a_table_without_illegal_maps_says_so(measured):
    assert "Every map is legal." in regimes.table(Rows(row for row in measured if row["method"] != "broken"))


def test_the_figure_takes_the_best_of_the_others_by_layer(measured):
    measured = Rows(row for row in measured if row["method"] != "initial_program")
    measured += [_row(i, "initial_program", ["15/1", "15/1"]) for i in "ab"]
    deepseek, best, fast, _ = regime_gaps.boxes_of(regimes.gaps(measured)["2 slots"])
    assert deepseek == [0.5] * 4
    assert best == pytest.approx([0, 0.1, 0, 0.3])
    assert fast == []
