from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap import read_routing
from eplb_gap.experiments.measuring import rows
from eplb_gap.problem import Deployment, LoadTrace, Placement, certificate
from eplb_gap.problem.bounds.bounds import Bound
from eplb_gap.solvers import ENGINES

TRACE, FLAGSHIP = "results/traces/recorded-windows.npz", "dsv3-prefill-ep32"


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "eplb_gap", *map(str, arguments)], capture_output=True, text=True, timeout=240)


def test_solve_proves_the_readme_example():
    done = run("solve", "--example", "deepseek-readme", "--json", "--time-limit", 40)
    layers = json.loads(done.stdout)["layers"]
    assert [layer["upper"] for layer in layers] == [layer["lower"] for layer in layers] == ["151/1", "359/2"]
    assert {layer["status"] for layer in layers} == {"optimal"}


@pytest.mark.parametrize("duplicates", ["allowed", "forbidden"])
def test_solve_proves_the_global_and_the_flashlb_example(duplicates):
    for arguments, optima in ((("deepseek-readme", "--policy", "global"), ["136/1", "172/1"]), (("flashlb",), ["590/3"])):
        done = run("solve", "--example", *arguments, "--json", "--duplicates", duplicates, "--time-limit", 120)
        layers = json.loads(done.stdout)["layers"]
        assert [layer["upper"] for layer in layers] == [layer["lower"] for layer in layers] == optima


def test_solve_reads_a_trace(tmp_path):
    trace = tmp_path / "t.npz"
    loads = np.random.default_rng(0).integers(1, 900, size=(3, 2, 12))
    LoadTrace(loads).save(trace)
    done = run("solve", "--loads", trace, "--deployment", "deepseek-readme", "--plan-window", 0, "--json", "--method", "bounds")
    layers = json.loads(done.stdout)["layers"]
    assert all(
        Fraction(layer["upper"]) >= Fraction(layer["lower"]) >= Fraction(int(row.sum()), 8)
        for layer, row in zip(layers, loads[0], strict=True)
    )


def test_a_certificate_is_verified_where_no_solver_can_be_imported(tmp_path):
    path = tmp_path / "c.json"
    assert run("solve", "--example", "flashlb", "--certificate", path, "--json", "--time-limit", 120).returncode == 0
    hide = (
        "import sys, runpy\n"
        "for name in ('ortools', 'pulp', 'highspy', 'numba', 'torch'): sys.modules[name] = None\n"
        f"sys.argv = ['eplb-gap', 'verify', {str(path)!r}, '--json']\n"
        "runpy.run_module('eplb_gap', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, timeout=60)
    verdict = json.loads(done.stdout)
    assert verdict["upper"] == verdict["lower"] == ["590/3"]
    assert verdict["optimal"] == 1
    document = json.loads(path.read_text())
    document["loads"][0][0] += 1
    path.write_text(json.dumps(document))
    done = run("verify", path)
    assert done.returncode == 2
    assert "loads_sha256" in done.stderr


def test_claims_are_counted_apart_and_can_be_forbidden(tmp_path):
    path = tmp_path / "c.json"
    loads, placement = [[4, 4, 2, 2], [3, 3, 3, 3]], Placement([[0, 2, 1, 3]] * 2, 4)
    bounds = [Bound(Fraction(6), "claim", {"solver": "HiGHS", "version": "1.15.1"}), Bound(Fraction(6), "mean")]
    certificate.write(path, loads, Deployment(4, 4, 2), placement, bounds)
    done = run("verify", path)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "2 layers: 1 proven optimal by witness, 1 bound rests on a claim (HiGHS 1.15.1), 0 open",
        "rests on a claim: layer 0: 6 by claim of HiGHS 1.15.1",
    ]
    done = run("verify", path, "--no-claims", "--json")
    assert done.returncode == 1
    assert "1 claim(s) where none is allowed: layer 0: 6 by claim of HiGHS 1.15.1" in done.stderr
    said = json.loads(done.stdout)
    assert (said["states"], said["optimal"], said["claimed"], said["open"]) == (["claimed", "optimal"], 1, 1, 0)
    assert said["claims"] == ["layer 0: 6 by claim of HiGHS 1.15.1"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["verify", "pyproject.toml"], "no JSON"),
        (["bench", "solvers", "--workers", "0"], "at least 1"),
        (["solve"], "exactly one of the two"),
        (["solve", "--example", "flashlb", "--loads", "x.npz"], "exactly one of the two"),
        (["solve", "--example", "flashlb", "--plan-window", "0"], "--plan-window is given with --example flashlb"),
        (
            ["evaluate", "--loads", TRACE, "--deployment", FLAGSHIP, "--map", "fast", "--call-seconds", "nan"],
            "is nan; a positive",
        ),
        (["evaluate", "--loads", TRACE, "--deployment", FLAGSHIP, "--map", "fast", "--map-format", "zz"], "--map-format is 'zz'"),
        (
            ["evaluate", "--loads", TRACE, "--deployment", FLAGSHIP, "--map", "fast", "--protocol", "seed", "--previous", "fast"],
            "--previous is given with --protocol seed",
        ),
        (["solve", "--loads", "nowhere.npz", "--deployment", "olmoe-ep16"], "does not exist"),
        (["solve", "--loads", "pyproject.toml", "--deployment", "olmoe-ep16"], "no recorded loads of a known format"),
        (["solve", "--loads", "pyproject.toml"], "--deployment is missing"),
        (["evaluate", "--loads", TRACE, "--deployment", FLAGSHIP], "Missing option '--map'"),
        (["evaluate", "--loads", TRACE, "--deployment", FLAGSHIP, "--map", "fastest"], "neither a file nor a method"),
        (["evaluate", "--loads", TRACE, "--deployment", FLAGSHIP, "--map", "pyproject.toml"], "pyproject.toml"),
        (["evaluate", "--loads", TRACE, "--deployment", FLAGSHIP, "--map", "LICENSE"], "LICENSE"),
        (["evaluate", "--loads", TRACE, "--deployment", FLAGSHIP, "--map", "fast", "--window", "13"], "13"),
        (["evaluate", "--loads", TRACE, "--deployment", FLAGSHIP, "--map", "fast", "--plan-window", "12"], "windows 0 to 11"),
        (["evaluate", "--loads", TRACE, "--deployment", FLAGSHIP, "--map", "fast", "--protocol", "sed"], "the protocols are"),
        (
            ["evaluate", "--loads", TRACE, "--deployment", FLAGSHIP, "--map", "f.py", "--protocol", "seed"],
            "neither a Python file",
        ),
        (["explain", "--loads", TRACE, "--deployment", "olmoe-ep16"], "the loads have 256 experts"),
        (["explain", "--loads", TRACE, "--slots", "288", "--gpus", "31"], "num_gpus is 31"),
        (["explain", "--loads", TRACE, "--deployment", FLAGSHIP, "--figure", "x.gif"], "--figure is x.gif"),
        (["explain", "--loads", TRACE, "--deployment", FLAGSHIP, "--html", "LICENSE/x.html"], "--html is LICENSE"),
        (["evaluate", "--loads", TRACE, "--deployment", FLAGSHIP, "--map", "fast", "--per-step"], "--per-step needs --window"),
        (["capacity", "--loads", TRACE, "--deployment", FLAGSHIP, "--target", "1.5"], "target is 1.5"),
        (
            ["convert", "--map", "fast", "x.json", "--deployment", FLAGSHIP, "--to", "vllm", "--max-moves", "3"],
            "needs --previous",
        ),
        (
            ["convert", "--map", "fast", "x.json", "--deployment", FLAGSHIP, "--to", "vllm", "--move-cost", "3"],
            "--move-cost needs --previous",
        ),
        (["convert", "x.json"], "--map IN is missing"),
        (["convert", "--loads", TRACE, "x.json"], "a name ending in .npz is needed"),
        (["convert", "--map", "fast", "x.json", "--deployment", FLAGSHIP], "--to is None"),
        (["convert", "--map", "fast", "x.json", "--deployment", FLAGSHIP, "--to", "vllm"], "fast"),
        (["convert", "--map", "LICENSE", "x.json", "--to", "vllm"], "--experts is missing"),
        (["solve", "--loads", "pyproject.toml", "--deployment", "dsv4"], "the presets are"),
        (["solve", "--example", "flashlb", "--method", "gurobi"], "the solvers are"),
        (["solve", "--exampel", "flashlb"], "No such option"),
        (["slove"], "No such command"),
        (["record", "--corpus", "nowhere", "--out", "x.npz"], "a folder with a sub-folder"),
        (["reproduce", "--workers", "0"], "at least 1"),
    ],
)
def test_bad_input_is_one_readable_line_and_exit_code_2(arguments, text):
    done = run(*arguments)
    assert done.returncode == 2
    assert text in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_better_map_is_found_written_and_scored(tmp_path):
    loads = tmp_path / "loads.csv"
    cells = itertools.product(range(3), range(2), range(12))
    lines = [f"{window},{layer},{e},{10 + (7 * window + 5 * layer + 3 * e) % 40}" for window, layer, e in cells]
    loads.write_text("\n".join(["window,layer,expert,tokens", *lines]))
    target = tmp_path / "map.json"
    arguments = ["--loads", loads, "--deployment", "deepseek-readme"]
    written = run("convert", *arguments, "--map", "fast", "--to", "vllm", target, "--json")
    assert json.loads(written.stdout) == {"written": str(target), "format": "vllm", "layers": 2, "slots": 16}
    scored = json.loads(run("evaluate", *arguments, "--map", target, "--map", "fast", "--previous", "fast", "--json").stdout)
    on_file, planned = scored["maps"]
    assert (on_file["map"], planned["map"]) == ("map.json", "fast")
    # The file was planned on the window that is served here: no map planned on the window before serves it better.
    assert on_file["serving"]["balancedness_gpu"] >= planned["serving"]["balancedness_gpu"]
    assert planned["planning"]["gap_worst"] >= 0
    assert planned["moved"] >= 0
    page, figure = tmp_path / "why.html", tmp_path / "why.png"
    explained = run("explain", *arguments, "--map", target, "--html", page, "--figure", figure, "--json")
    data = json.loads(explained.stdout)
    assert sum(map(Fraction, data["steps"].values())) == Fraction(data["excess"])
    for layer in data["layers"]:
        makespans = layer["makespans"]
        assert sum(map(Fraction, layer["steps"].values())) == Fraction(makespans["planned"]) / Fraction(makespans["mean"]) - 1
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_map_in_use_is_kept_within_a_budget_of_moves(tmp_path):
    target = tmp_path / "map.json"
    arguments = ["--loads", TRACE, "--deployment", FLAGSHIP, "--map", "fast", "--previous", "initial_program", "--to", "vllm"]
    renamed = json.loads(run("convert", *arguments, target, "--json").stdout)["moved"]
    within = json.loads(run("convert", *arguments, "--max-moves", 100, target, "--json").stdout)["moved"]
    assert within <= 100 < renamed < 8 * 288
    costs = (0, 50, 1e9)
    moved = [json.loads(run("convert", *arguments, "--move-cost", c, target, "--json").stdout)["moved"] for c in costs]
    assert moved[0] > moved[1] > moved[2] == 0


def test_steps_are_scored_beside_their_window():
    steps = TRACE.replace("windows", "steps")
    arguments = ["--loads", steps, "--window", 100, "--deployment", FLAGSHIP, "--map", "fast-lpt", "--per-step", "--json"]
    scores = json.loads(run("evaluate", *arguments).stdout)
    [one] = scores["maps"]
    found = scores["steps"]["fast-lpt"]
    assert len(found["by_step"]) == 100
    assert found["of_window"] == pytest.approx(one["serving"]["balancedness_gpu"])
    assert found["balancedness"] < found["of_window"]


def test_capacity_says_what_is_reached(tmp_path):
    loads = tmp_path / "loads.npz"
    LoadTrace(np.random.default_rng(0).integers(1, 900, size=(3, 2, 12))).save(loads)
    arguments = [
        "--loads",
        loads,
        "--deployment",
        "deepseek-readme",
        "--policy",
        "global",
        "--target",
        0.9,
        "--out",
        tmp_path / "f",
    ]
    found = json.loads(run("capacity", *arguments, "--json").stdout)
    assert [step["slots"] for step in found["steps"]] == [16, 24]
    for step in found["steps"]:
        assert step["reached"] <= step["limit"] + 1e-9
        assert (step["verdict"] == "reached") is (step["reached"] >= 0.9)
    assert all(path.endswith((".pdf", ".png")) for path in found["files"])


def test_a_protocol_scores_methods_and_files_and_refuses_what_fails(tmp_path):
    program = tmp_path / "mine.py"
    program.write_text("def rebalance_experts(*arguments):\n    raise RuntimeError('not today')\n")
    arguments = ["--loads", TRACE, "--deployment", FLAGSHIP, "--protocol", "seed", "--map", "fast", "--map", program]
    scores = json.loads(run("evaluate", *arguments, "--json").stdout)
    assert scores["fast"]["status"] == "legal"
    assert len(scores["fast"]["pairs"]) == 5
    assert "not today" in scores[str(program)]["status"]


def test_ctrl_c_keeps_finished_rows_and_says_so(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "eplb_gap", "reproduce", "--suite", "protocol", "--runs", str(tmp_path)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "protocol.ndjson").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; what was finished is kept" in said
    assert "Traceback" not in said
    done = len(rows.read(tmp_path / "protocol.ndjson"))
    assert done >= 1
    assert json.loads(run("status", "--runs", tmp_path, "--json").stdout)["protocol"]["done"] == done


def test_help_lists_the_commands():
    done = run("--help")
    assert done.returncode == 0
    commands = "solve evaluate explain calibrate capacity bench record convert verify reproduce status"
    assert all(name in done.stdout for name in commands.split())


def test_the_help_of_solve_lists_the_engines():
    said = " ".join(run("solve", "--help").stdout.replace("\u2502", " ").split())
    assert all(name in said for name in ENGINES)


def test_status_counts_cells(tmp_path):
    counts = json.loads(run("status", "--runs", tmp_path, "--json").stdout)
    assert counts["protocol"]["done"] == 0
    assert counts["protocol"]["cells"] == 2 * (12 * 11 + 11)


def test_routing_is_converted_to_a_trace_and_counted_as_loads(tmp_path):
    chosen = np.random.default_rng(0).permuted(np.tile(np.arange(12), (600, 2, 1)), axis=2)[:, :, :4]
    np.savez(tmp_path / "r.npz", routed_experts=chosen, offsets=[0, 250, 600])
    done = run("convert", "--routing", tmp_path / "r.npz", tmp_path / "t.npz", "--experts", 12, "--json")
    said = json.loads(done.stdout)
    assert (said["tokens"], said["layers"], said["topk"], said["experts"], said["columns"]) == (600, 2, 4, 12, ["request"])
    assert (read_routing(tmp_path / "t.npz").experts == chosen).all()
    scored = run("evaluate", "--loads", tmp_path / "t.npz", "--deployment", "deepseek-readme", "--map", "fast")
    assert (scored.returncode, "a step is 256 tokens" in scored.stderr) == (0, True), scored.stderr
    done = run("convert", "--routing", tmp_path / "r.npz", "--loads", tmp_path / "r.npz", tmp_path / "u.npz")
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (
        2,
        "",
        ["eplb-gap: --routing and --loads are given; one of them is converted"],
    )
    assert not (tmp_path / "u.npz").exists()


def test_record_writes_steps_windows_and_routing(tmp_path):
    for domain in ("a", "b"):
        (tmp_path / "corpus" / domain).mkdir(parents=True)
        for number in range(10):
            (tmp_path / "corpus" / domain / str(number)).write_text(f"{domain} text number {number} " * 60)
    done = run(
        "record",
        "--tiny",
        "--corpus",
        tmp_path / "corpus",
        "--out",
        tmp_path / "t.npz",
        "--checkpoint",
        tmp_path / "m.pt",
        "--routing",
        tmp_path / "r.npz",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert (read_routing(tmp_path / "r.npz").load_trace().loads == LoadTrace.load(tmp_path / "t.npz").loads).all()
    assert LoadTrace.load(tmp_path / "t.npz").loads.shape == (16, 2, 32)
    windows = LoadTrace.load(json.loads(done.stdout)["windows"])
    assert windows.loads.shape == (4, 2, 32)
    assert windows.provenance["window_steps"] == 4


@pytest.mark.parametrize("command", ["solve", "explain", "convert"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path, command):
    (tmp_path / "file").write_text("in the way")
    loads = ("--loads", TRACE, "--deployment", FLAGSHIP)
    outputs = {
        "solve": lambda path: ("solve", "--example", "deepseek-readme", "--method", "oracle", "--certificate", path),
        "explain": lambda path: ("explain", *loads, "--map", "fast", "--html", path),
        "convert": lambda path: ("convert", "--map", "fast", path, *loads, "--to", "vllm"),
    }
    for path in (tmp_path, tmp_path / "file" / "c.json"):
        done = run(*outputs[command](path))
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
        assert str(path if path == tmp_path else path.parent) in done.stderr


def test_a_certificate_goes_to_a_folder_that_did_not_exist(tmp_path):
    path = tmp_path / "new" / "c.json"
    assert run("solve", "--example", "flashlb", "--certificate", path).returncode == 0
    assert run("verify", path).returncode == 0


def test_a_threshold_that_takes_hours_to_read_is_refused_at_once(tmp_path):
    path = tmp_path / "c.json"
    assert run("solve", "--example", "flashlb", "--certificate", path).returncode == 0
    document = json.loads(path.read_text())
    for witness in ({"threshold": "1e999999999", "multipliers": []}, {"refuted": "1e999999999", "above": "1/1"}):
        kind = "pairing dual" if "threshold" in witness else "slot counting"
        document["layers"][0].update(proof=kind, witness=witness)
        path.write_text(json.dumps(document))
        done = subprocess.run([sys.executable, "-m", "eplb_gap", "verify", path], capture_output=True, text=True, timeout=20)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "1e999999999" in done.stderr


@pytest.mark.parametrize("given", [("--slots", "0"), ("--time-limit", "-1"), ("--method", "best"), ("--target-gap", "nan")])
def test_an_error_behind_a_spinner_is_one_line(given):
    done = run("solve", "--loads", TRACE, "--deployment", FLAGSHIP, *given)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert given[1] in done.stderr


def test_what_a_file_name_cannot_print_is_escaped(tmp_path):
    done = run("verify", tmp_path / "no\nfile\x1b[2J.json")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no\\nfile\\x1b[2J.json" in done.stderr
