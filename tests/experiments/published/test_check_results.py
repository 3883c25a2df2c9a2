"""Whatever is changed in a copy of ``results/`` is named."""

from __future__ import annotations

import json
import shutil

import pytest
from rich.console import Console

from eplb_gap.experiments.loads import traces
from eplb_gap.experiments.loads.public_counts import VARIABLE
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.published import certificates, check_results, rerun, row_proofs
from eplb_gap.experiments.published.compare import TIMED, compare, differences
from eplb_gap.experiments.published.manifest import MANIFEST, ROW_DIGESTS, name, write_manifest
from eplb_gap.experiments.studies import schema
from eplb_gap.experiments.studies.catalogue import STUDIES
from eplb_gap.experiments.studies.public_levels import NOT_GIVEN
from eplb_gap.problem import InputError
from eplb_gap.problem.proofs import TRUSTS

CONSOLE = Console(quiet=True)


@pytest.fixture(scope="module")
def published():
    return rows.read_suites(rows.RESULTS)


@pytest.fixture
def copy(tmp_path):
    """Copy results, paper and the pages."""
    for folder in ("results", "paper", "docs"):
        shutil.copytree(rows.ROOT / folder, tmp_path / folder)
    shutil.copy(rows.ROOT / "README.md", tmp_path / "README.md")
    return tmp_path / "results"


def problems(results, *checks):
    """Return the problems of some checks."""
    read = check_results.Published.read(results)
    return [line for check in checks for line in getattr(check_results, f"check_{check}")(read)]


def quick(results):
    return problems(results, "size", "schema", "rows", "files")


def edit(path, old, new):
    """Replace the first occurrence of a text."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def the_row(file, suite, instance, method):
    """Return the line of a row, for editing."""
    return next(line for line in file.read_text().splitlines() if Row.parse(line.encode()).key[:3] == (suite, instance, method))


def test_what_is_committed_passes_every_check_that_runs_nothing_anew():
    outcome = dict((title, found) for title, _, found in check_results.check(rows.RESULTS, 0, 0, 1, CONSOLE))
    assert list(outcome) == list(check_results.CHECKS)
    assert not any(outcome.values()), outcome


def test_a_deleted_row_is_named(copy):
    file = copy / "gap.ndjson"
    edit(file, the_row(file, "gap", "flashlb", "milp") + "\n", "")
    found = problems(copy, "rows", "files")
    assert "row gap | flashlb | milp | 0: missing" in found
    assert "file gap.ndjson: changed" in found
    assert "suite gap: changed" in found


def test_a_deleted_suite_is_named_with_what_draws_from_it(copy):
    (copy / "migration.ndjson").unlink()
    found = problems(copy, "rows", "files", "suites")
    assert "file migration.ndjson: missing" in found
    assert "row migration | slow global | 10 % | 0: missing" in found
    needs = "draws from suite migration, which has no rows"
    assert f"figure migration_front: experiments/exhibits/figures/migration_front.py {needs}" in found
    assert f"results/serving_tables.md: experiments/studies/jobs.py {needs}" in found


def test_changed_digits_are_named_with_their_rows(copy):
    file = copy / "protocol.ndjson"
    changed = {f"recorded-0{n}": field for n, field in enumerate(["cell_wall_seconds", "cores", "hash", "upper", "placement"], 3)}
    for instance, field in changed.items():
        line = the_row(file, "protocol", instance, "rr_waterfill_hare")
        at = next(i for i in range(line.index(f'"{field}"') + len(field) + 3, len(line)) if line[i].isdigit())
        edit(file, line, line[:at] + str((int(line[at]) + 1) % 10) + line[at + 1 :])
    found = quick(copy)
    named = {f"row protocol | {instance} | rr_waterfill_hare | 0: changed" for instance in changed}
    assert {line for line in found if line.startswith("row ")} == named
    assert "file protocol.ndjson: changed" in found


def test_rows_that_are_added_or_there_twice_are_named(copy, published):
    row, twice = Row(published[0], instance="invented"), published[1]
    for added in (row, twice):
        rows.append(copy / f"{added['suite']}.ndjson", added)
    found = problems(copy, "schema", "rows")
    assert f"row {name(row)}: not listed" in found
    assert f"{name(twice)}: 2 rows of this key" in found


def test_a_damaged_line_is_named(copy):
    edit(copy / "steps.ndjson", '{"by_step"', '{by_step"')
    found = quick(copy)
    assert "steps.ndjson, line 1: no result row" in found
    assert sum(line.startswith("row ") and line.endswith(": missing") for line in found) == 1
    assert "number flattered: changed" in found


def test_a_changed_digest_is_named(copy):
    line = (copy / ROW_DIGESTS).read_text().splitlines()[4]
    edit(copy / ROW_DIGESTS, line, ("1" if line[0] == "0" else "0") + line[1:])
    assert problems(copy, "rows") == [f"row {line.partition('  ')[2]}: changed"]


def test_a_changed_manifest_is_named(copy):
    listed = json.loads((copy / MANIFEST).read_text())
    listed["figures"]["paper/figures/pareto.pdf"]["suites"] = ["gap"]
    (copy / MANIFEST).write_text(json.dumps(listed))
    assert problems(copy, "files") == ["figure paper/figures/pareto.pdf: changed"]


def draw_only(monkeypatch, texts, blocks):
    """Let the check of tables draw these alone: all of them take seconds."""
    for whole, kept in (("TEXTS", texts), ("BLOCKS", blocks)):
        monkeypatch.setattr(check_results, whole, {title: getattr(check_results, whole)[title] for title in kept})


def test_a_changed_number_of_the_paper_is_named(copy, monkeypatch):
    draw_only(monkeypatch, ["paper/numbers.json"], [])
    path = copy.parent / "paper" / "numbers.json"
    said = json.loads(path.read_text())["gap-fast"]["value"]
    edit(path, f'"{said}"', f'"1{said}"')
    assert problems(copy, "files") == ["table paper/numbers.json: changed", "number gap-fast: changed"]
    (found,) = problems(copy, "tables")
    assert found.startswith("paper/numbers.json, line ")


def test_a_number_of_the_paper_is_tied_to_its_rows(copy):
    listed = json.loads((copy / MANIFEST).read_text())["numbers"]["gap-fast"]
    assert listed["from"] == ["heuristics | calibrated hierarchical | fast", "heuristics | calibrated hierarchical | auto"]
    assert (listed["script"], listed["rows"]) == ("experiments/studies/head_to_head.py", 2)
    file = copy / "heuristics.ndjson"
    edit(file, the_row(file, "heuristics", "calibrated hierarchical", "fast") + "\n", "")
    assert "number gap-fast: changed" in problems(copy, "files")


def test_added_files_and_changed_figures_are_named(copy):
    (copy / "traces" / "other.npz").write_bytes(b"x")
    (copy.parent / "paper" / "figures" / "window_balance.png").write_bytes(b"x")
    (copy.parent / "paper" / "figures" / "pareto.pdf").unlink()
    found = problems(copy, "files")
    assert found == [
        "file traces/other.npz: not listed",
        "figure paper/figures/pareto.pdf: missing",
        "figure paper/figures/window_balance.png: changed",
    ]


def test_a_changed_digit_in_a_table_is_named_even_if_the_manifest_is_written_anew(copy, monkeypatch):
    draw_only(monkeypatch, ["results/tables.md", "paper/tables/metric.csv"], ["gap table", "loss table"])
    edit(copy / "tables.md", "0.", "1.")
    edit(copy.parent / "docs" / "measured.md", "<!-- gap table -->\n| program", "<!-- gap table -->\n| method")
    found = problems(copy, "files")
    assert {"file tables.md: changed", "table results/tables.md: changed", "table docs/measured.md, gap table: changed"} <= set(
        found
    )
    write_manifest(copy)
    assert problems(copy, "files") == []
    found = problems(copy, "tables")
    assert [line.partition(":")[0].partition(" line")[0] for line in found] == [
        "results/tables.md,",
        "docs/measured.md, gap table,",
    ]


def judge_only(monkeypatch, *cases):
    """Let the check of certificates judge these alone: all of them take seconds."""
    chosen = {case: traces.gap_cases()[case] for case in cases}
    for module in (check_results, certificates):
        monkeypatch.setattr(module, "gap_cases", lambda: chosen)


def test_a_changed_number_in_a_certificate_is_named_even_if_the_manifest_is_written_anew(copy, monkeypatch):
    judge_only(monkeypatch, "flagship-recorded")
    path = copy / "certificates" / "flagship-recorded.json"
    document = json.loads(path.read_text())
    numerator, denominator = document["layers"][3]["lower"].split("/")
    document["layers"][3]["lower"] = f"{int(numerator) + int(denominator)}/{denominator}"
    path.write_text(json.dumps(document))
    assert problems(copy, "files") == ["file certificates/flagship-recorded.json: changed"]
    write_manifest(copy)
    (line,) = problems(copy, "certificates")
    assert line.startswith("certificates/flagship-recorded.json: layer 3: ")


def test_a_certificate_of_another_instance_is_named(copy, monkeypatch):
    judge_only(monkeypatch, "node-recorded", "flashlb")
    certificates = copy / "certificates"
    shutil.copy(certificates / "node-calibrated.json", certificates / "node-recorded.json")
    (certificates / "flashlb.json").unlink()
    found = problems(copy, "certificates")
    assert any(line.startswith("certificates/flashlb.json: ") for line in found)
    assert "certificates/node-recorded.json: is of other loads or another deployment" in found


def test_too_many_bytes_are_a_problem(copy, monkeypatch):
    monkeypatch.setattr(check_results, "MOST_BYTES", 1000)
    (line,) = problems(copy, "size")
    assert "at most 1000" in line


def find(published, suite, kind):
    return published.one(suite=suite, kind=kind)


def copied(row):
    """Return a row of the same fields, to be changed before it is read."""
    return Row(json.loads(json.dumps(row)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"upper": ["1/0"]}, "upper is no list of p/q"),
        ({"cores": "2"}, "cores is no integer"),
        ({"gap": [float("nan")]}, "gap is no list of number"),
        ({"colour": "red"}, "has a field colour that such rows do not have"),
        ({"kind": "failure"}, "suite 'protocol' has no rows of kind 'failure'"),
    ],
)
def test_schema_names_the_field(published, change, expected):
    assert schema.problems({**find(published, "protocol", "solver"), **change}) == [expected]


def test_schema_names_what_is_missing(published):
    row = dict(find(published, "protocol", "solver"))
    del row["revision"]
    assert schema.problems(row) == ["lacks revision"]


def test_every_shape_has_rows(published):
    used = {id(schema.shape_of(row)) for row in published}
    assert used == {id(shape) for study in STUDIES.values() for shape in study.shapes}


@pytest.mark.parametrize(
    ("suite", "kind", "change", "expected"),
    [
        ("protocol", "solver", lambda row: row["gap"].__setitem__(2, 0.5), "layer 2: gap is 0.5"),
        ("protocol", "solver", lambda row: row["status"].__setitem__(2, "optimal"), "layer 2: status is 'optimal'"),
        ("protocol", "solver", lambda row: row["lower"].pop(), "lower has 57 entries for 58 makespans"),
        ("protocol", "solver", lambda row: row.update(hash="0" * 16), "the instance's is"),
        ("regimes", "heuristic", lambda row: row.update(hash="0" * 16), "the instance's is"),
        ("redundancy", "solver", lambda row: row.update(hash="0" * 16), "the instance's is"),
        ("held_out", "history", lambda row: row.update(hash="0" * 16), "the instance's is"),
        ("redundancy", "heuristic", lambda row: row["planning"].__setitem__(3, 0.9), "planning balancedness of window 3 is 0.9"),
        ("protocol", "heuristic", lambda row: row["upper"].__setitem__(1, "3/1"), "layer 1: upper 3 is below the mean load"),
        ("protocol", "heuristic", lambda row: row["planning"].update(gpu=0.5), "planning balancedness of window 0 is 0.5"),
        ("heuristics", "heuristic", lambda row: row["planning"].__setitem__(4, 0.5), "planning balancedness of window 4 is 0.5"),
    ],
)
def test_rows_that_contradict_themselves_or_their_instance_are_named(published, suite, kind, change, expected):
    row = copied(find(published, suite, kind))
    assert row_proofs.problems(Rows([row])) == []
    changed = copied(row)
    change(changed)
    found = row_proofs.problems(Rows([changed]))
    assert any(expected in line for line in found)
    assert all(line.startswith(name(row)) for line in found)


@pytest.mark.parametrize(
    ("proof", "trust", "said"),
    [
        (["mean", "claim of CBC"], (2, 0, 0), "trust is"),
        ([["mean"], ["exhausted search"]], (1, 0, 1), "trust is"),
        ({"global": {"mean": 2, "claim of CBC": 1}}, (3, 0, 0), "trust is"),
        (["oracle"], (1, 0, 0), "no proof of kind 'oracle'"),
    ],
)
def test_a_claim_that_is_counted_as_recomputed_is_named(published, proof, trust, said):
    row = Row(find(published, "gap", "heuristic"), upper=None, proof=proof, trust=dict(zip(TRUSTS, trust, strict=True)))
    assert any(said in line for line in row_proofs.problems(Rows([row])))
    honest = Row(row, proof=["mean", "mean"], trust=dict(zip(TRUSTS, (2, 0, 0), strict=True)))
    assert row_proofs.problems(Rows([honest])) == []


def test_a_makespan_below_the_bound_of_another_row_is_named(published):
    solved = find(published, "protocol", "solver")
    other = next(r for r in published if r["hash"] == solved["hash"] and r["kind"] == "heuristic" and r["suite"] == "protocol")
    other = copied(other)
    numerator, denominator = map(int, solved["lower"][5].split("/"))
    other["upper"][5] = f"{numerator * 10**6 - denominator}/{denominator * 10**6}"
    found = row_proofs.problems(Rows([solved, other]))
    assert any(line.startswith(f"{name(other)}: layer 5: makespan") and name(solved) in line for line in found)


def test_a_kept_map_with_two_slots_swapped_is_named(published):
    row = next(row for row in published if "phy2log" in row and row["kind"] == "heuristic")
    assert row_proofs.problems(Rows([row])) == []
    row = copied(row)
    layer = row["phy2log"][0]
    layer[0], layer[-1] = layer[-1], layer[0]
    assert row_proofs.problems(Rows([row]))


def test_a_cheap_row_is_run_again(published, tmp_path):
    chosen = published.where(suite="gap", instance="flashlb", method="proportional_quota_replication")
    assert rerun.rerun(chosen, 1, CONSOLE) == []
    false = Rows([Row(chosen[0], duplicates=chosen[0]["duplicates"] + 1)])
    (line,) = rerun.rerun(false, 1, CONSOLE)
    assert line.startswith(f"{name(chosen[0])}: duplicates is ")


def test_the_sample_is_of_quick_cells_and_follows_its_seed(published, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    one = rerun.draw(published, 9, 1)
    assert one == rerun.draw(published, 9, 1) != rerun.draw(published, 9, 2)
    assert len(one) == 9
    assert all(row["cell_wall_seconds"] < rerun.MOST_SECONDS and row["kind"] not in TIMED for row in one)
    assert len(rerun.draw(published, 10**6, 0)) < len(published)


def test_rows_on_public_loads_are_drawn_where_their_folder_is_given_and_counted_where_not(published, monkeypatch, tmp_path):
    def public(found):
        return [row for row in found if row["suite"] in ("public_gaps", "public_serving", "public_control", "public_routing")]

    monkeypatch.delenv(VARIABLE, raising=False)
    assert public(rerun.draw(published, 10**6, 0)) == []
    count = len(public(published)) + len(published.where(suite="public_levels"))
    assert rerun.left_out(published) == f"{count} rows on public loads, as {VARIABLE} names no folder"
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    drawn = rerun.draw(published, 9, 1)
    assert len(public(drawn)) == rerun.MOST_PUBLIC and len(drawn) == 9 + rerun.MOST_PUBLIC
    assert rerun.left_out(published) == ""
    with pytest.raises(InputError, match=r"olmoe_1b_7b_64 of real_counts\.json is missing; see eplb-gap public-loads"):
        rerun.rerun(drawn, 1, CONSOLE)


def test_what_a_run_was_not_given_is_left_out_of_the_comparison_and_nothing_else(published):
    row = published.where(suite="public_control")[0]
    without = copied(row)
    without["status"] = NOT_GIVEN
    outcome = compare(Rows([without]), published)
    assert (outcome.left_out, outcome.equal, outcome.problems) == (1, 0, [])
    assert compare(Rows([row]), Rows([without])).problems  # measured now, published as not given: not the same
    assert compare(Rows([without]), Rows([without])).equal == 1


def test_reruns_must_repeat_all_but_times_and_meet_the_intervals_of_solves(published):
    heuristic, solved = find(published, "protocol", "heuristic"), find(published, "protocol", "solver")
    again = {**heuristic, "wall_seconds": 9.0, "revision": "other", "planning": dict(heuristic["planning"])}
    assert differences(again, heuristic) == []
    again["planning"]["gpu"] *= 1 + 1e-9
    assert [line.split()[0] for line in differences(again, heuristic)] == ["planning"]
    tighter = {**solved, "lower": solved["upper"], "status": ["optimal"] * len(solved["upper"])}
    assert differences(tighter, solved) == []
    numerator, denominator = map(int, solved["upper"][0].split("/"))
    above = f"{numerator * 10**15 + 1}/{denominator * 10**15}"
    apart = {**tighter, "lower": [above, *solved["lower"][1:]], "upper": [above, *solved["upper"][1:]]}
    assert [line.partition(":")[0] for line in differences(apart, solved)] == ["layer 0"]


def test_command_says_what_failed(copy, capsys, monkeypatch):
    monkeypatch.setattr(check_results, "CHECKS", {"rows": check_results.check_rows})
    assert check_results.main(["--results", str(copy), "--sample", "0"]) == 0
    (copy / ROW_DIGESTS).unlink()
    assert check_results.main(["--results", str(copy), "--sample", "0", "--json"]) == 1
    said = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert not said["ok"]
    assert said["problems"]["rows"][0].startswith("cannot be checked: ")
