"""Levels: which seeds are held out, and what a verdict rests on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest

from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.studies import levels

LEVEL = levels.Level(24, 32, 8, ("ln.6", "zipf.8"), 10**5, 0.0, 2, each=2, median=0.1, worst=1.0, claims=False)


def rows(level, **changed):
    """Rows that meet a level; ``changed`` by field holds values by family and seed."""
    found = Rows()
    for family in level.families:
        for seed in level.seeds:
            fields = {"gap": [level.gap], "cpu_seconds": 0.05, "wall_seconds": 0.06, "proof": ["mean"]}
            for name, values in changed.items():
                fields[name] = values.get((family, seed), fields[name])
            found.append(Row({"suite": "levels", "instance": level.instance(family), "seed": seed, **fields}))
    return found


def test_half_of_the_seeds_of_every_cell_are_held_out():
    assert not set(levels.TUNED) & set(levels.HELD_OUT) and min(levels.HELD_OUT) >= 400
    seeds = {}
    for cell in levels.cells():
        if "number" in cell.arguments:
            seeds.setdefault(cell.key.instance, set()).add(cell.key.seed)
    for of_cell in seeds.values():
        assert 2 * len(of_cell & set(levels.HELD_OUT)) == 2 * len(of_cell & set(levels.TUNED)) == len(of_cell)
    assert max(Counter(cell.key for cell in levels.cells()).values()) == 1


def test_the_levels_of_the_single_layers_have_the_seeds_that_are_asked_for():
    counts = Counter(cell.key.instance for cell in levels.cells())
    for name, number in {
        "24/32/8 ln1.0": 6, "24/32/8 zipf.8": 6, "24/32/8 ln.6": 6, "256/288/144 ln.3": 8, "256/320/160 ln.3": 4,
        "256/320/160 ln.6": 4, "256/288/32 hierarchical zipf1.2@.26": 8, "128/192/64 ln2.3": 4, "64/96/32 zipf1.6": 4,
    }.items():  # fmt: skip
        assert counts[name] == number


def test_one_expert_of_the_hot_hierarchy_has_a_quarter_of_the_tokens():
    level = next(level for level in levels.LEVELS if level.nodes > 1)
    assert level.deployment.policy == "hierarchical"
    number = levels.LEVELS.index(level)
    for seed in level.seeds:
        plain, hot = (levels.instance(number, family, seed)[0][0] for family in level.families)
        assert 0.23 < plain.max() / plain.sum() < 0.28
        assert hot.max() / hot.sum() == pytest.approx(0.26, abs=1e-4)


def test_a_level_is_met_by_rows_that_are_what_is_asked():
    assert LEVEL.met(rows(LEVEL))


@pytest.mark.parametrize("seed", [0, 400])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gap", [1e-9]),
        ("proof", ["exhausted search"]),
        ("proof", ["claim of HiGHS"]),
        ("cpu_seconds", 1.1),
        ("wall_seconds", 3.3),
    ],
)
def test_one_solve_that_is_not_fails_it_tuned_or_held_out(seed, field, value):
    assert not LEVEL.met(rows(LEVEL, **{field: {("ln.6", seed): value}}))


def test_claims_count_only_where_they_are_not_allowed():
    on_word = {("ln.6", 400): ["claim of HiGHS"]}
    assert replace(LEVEL, claims=True).met(rows(LEVEL, proof=on_word))
    assert "1 on a claim" in LEVEL.found(rows(LEVEL, proof=on_word), levels.HELD_OUT[:2])
    assert "0 on a claim" in LEVEL.found(rows(LEVEL, proof=on_word), levels.TUNED[:2])


def test_the_median_is_that_of_the_held_out_seeds_too():
    slow = {(family, seed): 0.5 for family in LEVEL.families for seed in (400, 401)}
    slow.pop(("ln.6", 400))
    assert not LEVEL.met(rows(LEVEL, cpu_seconds=slow))
    assert LEVEL.met(rows(LEVEL, cpu_seconds={(family, 0): 0.5 for family in LEVEL.families}))


def test_a_share_may_miss_and_the_rest_has_a_level_of_its_own():
    level = levels.Level(256, 288, 144, ("ln.3",), 10**6, 0.0, 20, each=4, least=Fraction(7, 8), others=1e-4)
    for seeds, gap, met in (
        ((400,), 1e-4, True),
        ((0,), 1e-4, True),
        ((400, 401), 1e-4, False),
        ((0, 400), 1e-4, False),
        ((0,), 2e-4, False),
    ):
        assert level.met(rows(level, gap={("ln.3", seed): [gap] for seed in seeds})) == met


def test_a_row_that_is_missing_is_named():
    with pytest.raises(LookupError, match=r"24/32/8 zipf.8.*401"):
        LEVEL.met(Rows(rows(LEVEL)[:-1]))


def test_the_table_prints_the_two_halves_apart(monkeypatch):
    monkeypatch.setattr(levels, "LEVELS", (LEVEL,))
    monkeypatch.setattr(levels, "FLAGSHIP_LEVELS", ())
    measured = rows(LEVEL, gap={("ln.6", 400): [0.01]})
    (line,) = [line for line in levels.table(measured).splitlines() if line.startswith("| 24/32/8")]
    assert "CPU median 0.1 s, CPU worst 1 s, no claims" in line
    assert line.index("4/4 reach it") < line.index("3/4 reach it, 0 on a claim, worst gap 1.0000 %")
    assert line.endswith("| no |")
