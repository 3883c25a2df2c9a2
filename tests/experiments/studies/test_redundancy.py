"""Cells are the sweep; prices follow from bounds and balancedness by hand."""

from __future__ import annotations

import itertools

import pytest

from eplb_gap.experiments.exhibits.figures import redundancy as drawing
from eplb_gap.experiments.loads.traces import TRACES, WINDOWS
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.studies import redundancy
from eplb_gap.experiments.studies.redundancy import SWEEP, deployment, instance, price, served_price, table


def made(policy: str, gpus: int, redundant: int, name: str = "recorded") -> list[Row]:
    """Rows of two windows of two layers; a makespan is at least 100, and 1 more for every 10 slots short of 64."""
    least = 100 + (64 - redundant) // 10
    beside = {
        "suite": redundancy.SUITE,
        "instance": instance(name, policy, gpus, redundant),
        "seed": 0,
        "hash": "",
        "status": "legal",
    }
    served = {"planning": [0.9, 0.9], "serving": [80 / least, 40 / least, *[60 / least] * (WINDOWS - 3)]}
    optimum = {"upper": [[f"{least + 1}/1"] * 2] * 2, "lower": [[f"{least}/1"] * 2] * 2, "limit": [0.91, 0.91]}
    return [
        Row(**beside, **served, **optimum, method="auto", kind="solver"),
        *(
            Row(**beside, **served, upper=[[f"{least + above}/1"] * 2] * 2, method=method, kind="heuristic")
            for method, above in (("initial_program", 3), ("fast", 2))
        ),
    ]


@pytest.fixture(scope="module")
def measured():
    return Rows(
        row
        for name, ((policy, gpus), slots) in itertools.product(TRACES, SWEEP.items())
        for redundant in slots
        for row in made(policy, gpus, redundant, name)
    )


def test_cells_are_all_deployments_of_both_traces():
    keys = [cell.key for cell in redundancy.cells()]
    assert len(set(keys)) == len(keys) == 2 * 3 * (9 + 5 + 3 + 2 + 3)
    assert ("redundancy", "calibrated 256/288/32 hierarchical", "auto", 0) in keys
    assert ("redundancy", "recorded 256/256/64", "fast", 0) in keys


def test_policy_of_the_deployments():
    for (policy, gpus), slots in SWEEP.items():
        assert {deployment(policy, gpus, redundant).policy for redundant in slots} == {policy}
        assert max(slots) == redundancy.MOST


def test_price_is_the_interval_of_the_bounds(measured):
    low, high = price(measured, "recorded", "global", 32, 0)
    assert low == pytest.approx(100 * (106 / 101 - 1))
    assert high == pytest.approx(100 * (107 / 100 - 1))
    assert price(measured, "recorded", "global", 32, 64) == (0, 0)


def test_a_better_map_of_a_heuristic_bounds_the_optimum_if_it_is_legal(measured):
    exact = Rows(Row(row, upper=[["106/1"] * 2] * 2) if row["method"] == "fast" else row for row in measured)
    assert price(exact, "recorded", "global", 32, 0)[1] == pytest.approx(100 * (106 / 100 - 1))
    illegal = Rows(Row(row, status="illegal: layer 0") if row["method"] == "fast" else row for row in exact)
    assert price(illegal, "recorded", "global", 32, 0) == price(measured, "recorded", "global", 32, 0)


def test_equal_optima_are_not_told_apart():
    few, most = made("global", 32, 64), made("global", 32, 64)
    for row in few:
        row["instance"] = instance("recorded", "global", 32, 0)
    low, high = price(Rows([*few, *most]), "recorded", "global", 32, 0)
    assert low < 0 < high


def test_price_in_service_is_that_of_the_maps(measured):
    assert served_price(measured, "recorded", "global", 32, 0) == pytest.approx((6, 6, 6))


def test_table_has_a_line_of_every_deployment(measured):
    lines = table(measured).splitlines()
    assert sum(line.startswith(("| 8,", "| 16,", "| 32,", "| 64,")) for line in lines) == len(redundancy.cells()) / 3
    assert "+6.00" in next(line for line in lines if line.startswith("| 32, hierarchical | 0 |"))


def test_illegal_maps_have_no_balancedness_in_the_table(measured):
    rows = Rows(Row(row, status="illegal: layer 0") if row["method"] == "fast" else row for row in measured)
    assert "| illegal: layer 0 | illegal: layer 0 |" in table(rows)


def test_figure_is_drawn_from_the_rows(measured, tmp_path):
    assert set(drawing.SUITES) == {redundancy.SUITE}
    assert all(path.stat().st_size > 1000 for path in drawing.draw(measured, tmp_path))
