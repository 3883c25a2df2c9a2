"""The list of best known values follows from rows and certificates, holds, and takes from strangers only what improves it."""

from __future__ import annotations

import hashlib
import json
import shutil
from fractions import Fraction

import numpy as np
import pytest
from typer.testing import CliRunner

from eplb_gap import Deployment, solve
from eplb_gap.cli.main import app
from eplb_gap.experiments.exhibits import best_known as listed
from eplb_gap.experiments.loads.traces import gap_cases
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.published import best_known
from eplb_gap.problem import certificate
from eplb_gap.problem.bounds.bounds import Bound
from eplb_gap.problem.errors import InputError

CASE = gap_cases()["flashlb"]
KEY = {"suite": "gap", "instance": "flashlb", "method": "auto", "seed": 0, "kind": "solver", "timestamp": "2026-01-02T03:04:05"}


def solver_row(lower, upper, proof, **more):
    return Row({**KEY, "lower": [lower], "upper": [upper], "proof": [proof], "status": ["bounded"], **more})


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "certificates").mkdir()
    return tmp_path


def one(folder, *measured):
    (found,) = listed.known(Rows(measured), folder / "certificates", {})
    return found


def write(folder, *measured):
    rows.write(folder / "gap.ndjson", list(measured))
    best_known.write(folder, Rows(measured))
    return folder / best_known.FILE


def test_the_published_list_holds_and_names_what_is_open():
    found = best_known.check(rows.RESULTS / best_known.FILE)
    assert found.instances > 1000
    assert 0 < found.recomputed < found.by_rows < found.layers
    assert 0 < len(found.open) < found.instances


def test_a_claim_closes_nothing_and_is_kept_apart(folder):
    claimed = one(folder, solver_row("590/3", "590/3", "claim of HiGHS"))
    assert claimed.open == [0]
    assert claimed.lower[0].source == listed.CLOSED_FORM
    assert claimed.claimed[0].value == Fraction(590, 3)
    assert one(folder, solver_row("590/3", "590/3", listed.NOT_KEPT)).open == [0]
    assert one(folder, solver_row("590/3", "590/3", "replayed search")).open == []


def test_the_best_of_all_rows_counts_and_a_witness_before_what_was_not_kept(folder):
    weak, strong = solver_row("150/1", "200/1", "mean"), solver_row("151/1", "201/1", "mean", method="milp")
    heuristic = Row({**KEY, "method": "initial_program", "kind": "heuristic", "upper": ["199/1"]})
    found = one(folder, weak, strong, heuristic)
    assert (found.lower[0].value, found.upper[0].value, found.upper[0].rests) == (151, 199, "map of initial_program")
    entry = found.entry()
    assert entry["sources"][entry["upper"]["by"]][0] == "gap | flashlb | initial_program | 0"
    assert entry["date"] == "2026-01-02"
    assert entry["sha256"].startswith(rows.instance_hash(CASE.loads, CASE.deployment))


def test_a_certificate_in_the_folder_counts(folder):
    solve(CASE.loads, CASE.deployment, time_limit=20).save(folder / "certificates" / "mine.json")
    found = one(folder, solver_row("150/1", "200/1", "mean"))
    assert found.open == []
    assert found.lower[0].source == found.upper[0].source == "certificates/mine.json"
    checked = best_known.check(write(folder, solver_row("150/1", "200/1", "mean")))
    assert (checked.instances, checked.recomputed, checked.by_rows, checked.open) == (1, 1, 0, [])


def test_only_what_is_recomputed_and_improves_is_added(folder, tmp_path):
    path, row = tmp_path / "offered.json", solver_row("150/1", "200/1", "mean")
    solution = solve(CASE.loads, CASE.deployment, time_limit=20)
    solution.save(path)
    assert "improves gap flashlb, layers 0" in best_known.add(path, folder, Rows([row]))
    with pytest.raises(InputError, match="improves nothing that is known of gap flashlb"):
        best_known.add(path, folder, Rows([row]))
    claim = Bound(solution.upper[0], "claim", {"solver": "HiGHS"})
    certificate.write(path, CASE.loads, CASE.deployment, solution.placement, [claim])
    with pytest.raises(InputError, match="rests on a claim"):
        best_known.add(path, folder, Rows([row]))
    solve(np.array([[3, 2, 1]]), Deployment(3, 4, 2)).save(path)
    with pytest.raises(InputError, match="is of no published instance"):
        best_known.add(path, folder, Rows([row]))
    assert [at.name for at in (folder / "certificates").iterdir()] == [f"added-{one(folder, row).entry()['sha256'][:16]}-0.json"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda entry: entry["lower"].update(values=["201"]), "lower 201 is above upper 200"),
        (lambda entry: entry.update(sha256="0" * 64), "made anew it is"),
        (lambda entry: entry.update(shape="5/6/3"), "shape is 5/6/3"),
        (lambda entry: entry["upper"].update(values=["1"]), "lower 150 is above upper 1"),
        (lambda entry: entry["lower"].update(values=["0"]) or entry["upper"].update(values=["1"]), "is below the mean load"),
        (lambda entry: entry["sources"][0].__setitem__(1, "claim of HiGHS"), "lower rests on a claim"),
        (lambda entry: entry["lower"].update(values=["150", "150"]), "2 bounds and 1 makespans"),
        (lambda entry: entry["lower"].update(values=["1e3"]), "a fraction like"),
        (lambda entry: entry.pop("upper"), "has no field 'upper'"),
        (lambda entry: entry.update(notes="fine"), "unknown field 'notes'"),
        (lambda entry: entry.update(date="2099-99-99\x1b"), "date is '2099-99-99.*a day like"),
        (lambda entry: entry.update(date=3), "date is 3"),
        (lambda entry: entry.update(name="gap flashlb\n1 instances, 1 layers: 1 optimal"), "has another name there"),
        (lambda entry: entry["upper"].update(values=["590/3"]), "590/3 by 'map of auto' is what no published row"),
        (lambda entry: entry["lower"].update(values=["160"]), "160 by 'mean' is what no published row"),
        (
            lambda entry: entry["sources"].__setitem__(0, ["made up row", "replayed search"]),
            "by 'replayed search' is what no published row 'made up row' says",
        ),
        (
            lambda entry: entry["sources"].__setitem__(0, ["closed form", "mean"]) or entry["lower"].update(values=["199"]),
            "lower is 199, closed forms prove",
        ),
        (lambda entry: entry["sources"][0].__setitem__(0, "certificates/../gap.ndjson"), "is no file in certificates/"),
        (
            lambda entry: entry["sources"].append(["closed form", "mean"]) or entry["upper"].update(values=["190"], by=2),
            "190 by 'mean' is what no published row 'closed form' says",
        ),
        (lambda entry: entry["sources"].append(["closed form", "mean"]), "sources is .*rows and certificates give"),
        (lambda entry: entry.update(claimed={"0": ["160", 0]}), "claimed is .*; rows and certificates give None"),
        (lambda entry: entry.update(date="2026-02-30"), "date is '2026-02-30'; a day like"),
        (lambda entry: entry.update(date="2099-12-31"), "date is '2099-12-31'; rows and certificates give '2026-01-02'"),
        (lambda entry: entry["lower"].update(more=1), "lower is .*rows and certificates give"),
        (lambda entry: entry["lower"].update(by=False), "lower is .*rows and certificates give"),
        (lambda entry: entry["loads"].update(study="nothing"), "lacks or misspells a field"),
        (lambda entry: entry.update(claimed={"0": ["140", 0]}), "the claim 140 is not between"),
        (lambda entry: entry["sources"][0].__setitem__(0, "certificates/none.json"), "none.json"),
    ],
)
def test_what_does_not_hold_is_named(folder, change, said):
    path = write(folder, solver_row("150/1", "200/1", "mean"))
    document = json.loads(path.read_text())
    change(document["instances"][0])
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=f"instance .*{said}"):
        best_known.check(path)


def test_a_certificate_that_proves_something_else_is_named(folder):
    solution = solve(CASE.loads, CASE.deployment, time_limit=20)
    solution.save(folder / "certificates" / "mine.json")
    path = write(folder, solver_row("150/1", "200/1", "mean"))
    path.write_text(path.read_text().replace('"lower":{"values":["590/3"]', '"lower":{"values":["500/3"]'))
    with pytest.raises(InputError, match=r"500/3 is said to be from certificates/mine.json, which proves 590/3"):
        best_known.check(path)
    shutil.copy(rows.RESULTS / "certificates" / "deepseek-readme.json", folder / "certificates" / "mine.json")
    with pytest.raises(InputError, match=r"certificates names 'mine.json'; no file of that name and sha256"):
        best_known.check(path)
    document = json.loads(path.read_text().replace("500/3", "590/3"))
    document["certificates"]["mine.json"][0] = hashlib.sha256((folder / "certificates" / "mine.json").read_bytes()).hexdigest()
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="is of another instance"):
        best_known.check(path)
    document["certificates"] = {}
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"certificates does not name mine.json"):
        best_known.check(path)


def test_a_list_is_neither_empty_nor_doubled_nor_a_part(folder):
    path = write(folder, solver_row("150/1", "200/1", "mean"))
    document = json.loads(path.read_text())
    for instances, said in (
        ([], "lacks 1 published instances, the first gap flashlb"),
        (document["instances"] * 2, "it is listed twice"),
        (["flashlb"], "instance 0: it is 'flashlb'; an object is needed"),
    ):
        path.write_text(json.dumps({**document, "instances": instances}))
        with pytest.raises(InputError, match=said):
            best_known.check(path)
    path.write_text(json.dumps({**document, "more": 1}))
    with pytest.raises(InputError, match="unknown field 'more'"):
        best_known.check(path)


def test_days_of_certificates_are_kept_until_they_change(folder):
    at = folder / "certificates" / "mine.json"
    solve(CASE.loads, CASE.deployment, time_limit=20).save(at)
    path = write(folder, solver_row("150/1", "200/1", "mean"))
    document = json.loads(path.read_text())
    document["certificates"]["mine.json"][1] = "2020-02-02"
    path.write_text(json.dumps(document))
    assert best_known.added(folder)["mine.json"][1] == "2020-02-02"
    at.write_text(at.read_text() + "\n")
    assert best_known.added(folder)["mine.json"][1] != "2020-02-02"


def test_open_instances_are_grouped(folder):
    found = listed.table(Rows([solver_row("150/1", "200/1", "mean")]), folder / "certificates")
    assert "| gap, 2 slots per GPU | 1 | 1 | 1/1 | 0 | 33.3333 % (gap flashlb) |" in found


def test_the_command_checks_a_list_and_ends_with_one_line_where_it_does_not_hold(folder):
    path = write(folder, solver_row("150/1", "200/1", "mean"))
    done = CliRunner().invoke(app, ["verify", "--best-known", str(path)])
    assert done.exit_code == 0
    assert "open: gap flashlb: 0 of 1 layers optimal, worst gap 33.3333 %" in done.stdout
    assert "1 instances, 1 layers: 0 optimal, recomputed here; 0 optimal on the word of published rows; 1 open" in done.stdout
    path.write_text(path.read_text().replace('"200"', '"140"'))
    done = CliRunner().invoke(app, ["verify", "--best-known", "--json", str(path)])
    assert isinstance(done.exception, InputError)
    assert isinstance(CliRunner().invoke(app, ["verify"]).exception, InputError)
