"""Serving on windows that only some users have: without them nothing fails, with them the right window is planned and served."""

from __future__ import annotations

import json
from itertools import pairwise, permutations

import numpy as np
import pytest

from eplb_gap import heuristics
from eplb_gap.experiments.loads.public_counts import COUNTS, VARIABLE
from eplb_gap.experiments.loads.public_series import DECODE_SERIES
from eplb_gap.experiments.measuring.cell import failure_row
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.published import row_proofs
from eplb_gap.experiments.studies import public_serving, schema
from eplb_gap.experiments.studies.public_gaps import BASE
from eplb_gap.experiments.studies.public_serving import FIRST, MORE_SLOTS, NOT_GIVEN, SERIES, STUDY
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.metrics import balancedness_gpu

DOMAINS = np.random.default_rng(8).permuted(np.broadcast_to(np.arange(1, 9) ** 2, (5, 3, 8)), axis=2)


@pytest.fixture
def folder(tmp_path):
    """Files of the same form, with made-up counts: eleven windows of 4 requests."""
    (tmp_path / COUNTS).write_text(json.dumps({"mixtral_8x7b_8": DOMAINS.tolist()}))
    (tmp_path / DECODE_SERIES).parent.mkdir()
    shares = np.random.default_rng(9).dirichlet(np.ones(32), size=24)
    counts = np.random.default_rng(10).multinomial(4 * 8 * 4, shares, size=(FIRST + 2, 24))
    np.savez(tmp_path / DECODE_SERIES, counts=counts, requests=np.array(4))
    return tmp_path


def row(cell, fields):
    return Row({**failure_row(cell, ""), **fields, "cell_wall_seconds": 1.0, "cell_cpu_seconds": 1.0})


def cells(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    return public_serving.cells()


def texts(found):
    return [STUDY.table(found), STUDY.blocks["public losses"].render(found), *(n.compute(found) for n in STUDY.numbers.values())]


def test_without_a_folder_every_text_says_so_and_nothing_fails(monkeypatch):
    found = Rows(row(cell, cell.function(**cell.arguments)) for cell in cells(monkeypatch))
    assert {one["status"] for one in found} == {NOT_GIVEN}
    assert [problem for one in found for problem in schema.problems(one)] == row_proofs.problems(found) == []
    assert all(NOT_GIVEN in text.lower() for text in texts(found))


def test_windows_are_planned_before_they_are_served(monkeypatch, folder):
    monkeypatch.setenv(VARIABLE, str(folder))
    shape = MORE_SLOTS[0]
    loads = np.load(folder / DECODE_SERIES)["counts"]
    by_key = {(cell.instance, cell.method): cell for cell in public_serving.cells()}
    cell = by_key["GPT-OSS-20B 32/32/16", BASE]
    found = row(cell, cell.function(**cell.arguments))
    assert schema.problems(found) == []
    served = [balancedness_gpu(heuristics.rebalance(past, shape, BASE), now, 16) for past, now in pairwise(loads)]
    assert found["serving"] == served and public_serving.from_first(found, "serving") == served[-2:]
    cell = by_key["GPT-OSS-20B 32/40/8", "2 windows"]
    found = row(cell, cell.function(**cell.arguments))
    assert schema.problems(found) == []
    plan = heuristics.rebalance(loads[FIRST - 2 : FIRST].sum(axis=0), SERIES[0], "fast")
    assert found["served"]["fast"][0] == balancedness_gpu(plan, loads[FIRST], 8)
    assert {name: len(values) for name, values in found["served"].items()} == {"fast": 2, "sample-average": 2}


def test_every_domain_serves_itself_and_each_other_one(folder):
    shape = Deployment(8, 12, 4)
    found = public_serving.domain_cell("Mixtral-8x7B", shape, BASE, str(folder))
    maps = [heuristics.rebalance(domain, shape, BASE) for domain in DOMAINS]
    assert found["own"] == [balancedness_gpu(map_, domain, 4) for map_, domain in zip(maps, DOMAINS, strict=True)]
    assert found["others"] == [balancedness_gpu(maps[plan], DOMAINS[serve], 4) for plan, serve in permutations(range(5), 2)]
    assert np.mean(found["others"]) < np.mean(found["own"])


def made_rows(monkeypatch):
    """Rows of 31 pairs with known balancedness: planning .9 and serving .8, for `fast` .05 more and a step every second pair."""
    steps = [0.01 * (pair % 2) for pair in range(31)]
    found = Rows()
    for cell in cells(monkeypatch):
        fields = {"hash": "0", "sha256": "ab" * 32, "status": "legal", "kind": "made"}
        more = 0.0 if cell.method == BASE else 0.05
        if cell.function is public_serving.domain_cell:
            fields |= {"own": [0.9 + more] * 5, "others": [0.5] * 20}
        elif cell.function is public_serving.history_cell:
            fields |= {"served": {name: [0.82] * 23 for name in ("fast", "sample-average")}}
        elif cell.method == "auto":
            fields |= {"limit": [0.99] * 23, "planning": [0.96] * 23, "serving": [0.8] * 23}
        else:
            fields |= {"planning": [0.9 + more] * 31, "serving": [0.8 + bool(more) * (0.05 + step) for step in steps]}
        found.append(row(cell, fields))
    return found


def test_texts_say_what_the_rows_hold(monkeypatch):
    found = made_rows(monkeypatch)
    assert STUDY.numbers["public-plan-gain"].compute(found) == "+5.0"
    # Pairs 8 to 30: twelve of 5 and eleven of 6 points.
    assert STUDY.numbers["public-serve-gain"].compute(found) == "+5.5 [+5.3, +5.7]"
    assert STUDY.numbers["public-serve-all"].compute(found) == "+5.5"
    assert STUDY.numbers["public-domain-loss"].compute(found) == "40 to 45"
    assert STUDY.numbers["public-domain-gain"].compute(found) == "+0.0"
    assert public_serving.losses(found, SERIES[0]) == pytest.approx((1, 3, 6, 10))
    assert "| GPT-OSS-20B 32/48/16 | 3 | 0.8000 | 1.00 to 4.00 | 6.00 to 9.00 | 10.00 | 50 |" in public_serving.loss_table(found)
    assert "nan" not in STUDY.table(found)


def test_no_interval_of_fewer_than_eight_pairs():
    values = [float(value) for value in range(1, 9)]
    assert public_serving.t_interval(values) == pytest.approx((4.5, 4.5 - 2.0478, 4.5 + 2.0478), abs=1e-4)
    with pytest.raises(ValueError, match="there are 7 values; an interval needs 8"):
        public_serving.t_interval(values[:-1])
