from __future__ import annotations

import fcntl
import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from eplb_gap.experiments.measuring import rows, run_progress, runner
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.experiments.measuring.runner import run_cells
from eplb_gap.problem import InputError

KILLS = 10
STARTS = 5
"""Of a runner that is killed; with its servers each takes two seconds."""


def note(log, *what):
    with open(log, "a") as file:
        file.write(" ".join(map(str, what)) + "\n")


def double(number, log):
    note(log, number)
    return {"kind": "test", "value": 2 * number}


def tell_process():
    return {"kind": "test", "value": [os.getpid(), os.environ["OMP_NUM_THREADS"], os.environ["NUMBA_NUM_THREADS"]]}


def pause(log, seconds):
    note(log, os.getpid(), os.getppid())
    time.sleep(seconds)
    return {"kind": "test", "value": 1}


def once_broken(flag):
    if not Path(flag).exists():
        Path(flag).touch()
        raise ValueError("not yet")
    return {"kind": "test", "value": 7}


def fail():
    raise RuntimeError("the cell failed")


def leave():
    sys.exit("enough")


def vanish():
    os._exit(3)


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def allocate():
    return {"kind": "test", "value": float(np.ones(1 << 27).sum())}


def not_json():
    return {"kind": "test", "value": {1, 2}}


def cells(folder, numbers):
    return [Cell("s", f"n{n}", "double", double, {"number": n, "log": str(folder / "log")}) for n in numbers]


def grid(folder, count, seconds=0.02):
    at = {"log": str(folder / "log"), "seconds": seconds}
    return [Cell("even" if n % 2 == 0 else "odd", f"n{n}", "pause", pause, at, seed=n) for n in range(count)]


def quiet():
    return Console(file=io.StringIO())


def good_lines(folder):
    """Count the lines with a result of every key; a torn line anywhere would not parse."""
    lines = [Row.parse(line) for path in folder.glob("*.ndjson") for line in path.read_bytes().splitlines()]
    return Counter(row.key for row in lines if not row.failed)


def wait_until(holds, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_rows_come_back_in_the_order_of_the_cells_with_their_metadata(tmp_path):
    found = run_cells(cells(tmp_path, (3, 1, 2)), tmp_path, 2, quiet())
    assert [r["value"] for r in found] == [6, 2, 4]
    assert all({"versions", "revision", "cpu", "timestamp", "cell_wall_seconds"} <= set(r) for r in found)


def test_a_second_run_does_only_what_is_missing(tmp_path):
    run_cells(cells(tmp_path, (1, 2)), tmp_path, 1, quiet())
    found = run_cells(cells(tmp_path, (1, 2, 3)), tmp_path, 1, quiet())
    assert [r["value"] for r in found] == [2, 4, 6]
    assert sorted((tmp_path / "log").read_text().split()) == ["1", "2", "3"]


@pytest.mark.parametrize(("change", "again"), [({"revision": "another"}, False), ({"code": "another"}, True)])
def test_rows_of_other_code_are_run_again_and_those_of_another_commit_are_not(tmp_path, change, again):
    run_cells(cells(tmp_path, (1,)), tmp_path, 1, quiet())
    old = rows.read(tmp_path / "s.ndjson")[0]
    rows.append(tmp_path / "s.ndjson", {**old, **change})
    run_cells(cells(tmp_path, (1,)), tmp_path, 1, quiet())
    assert (tmp_path / "log").read_text().split() == ["1"] * (1 + again)


def test_every_cell_has_a_process_of_its_own_with_one_thread(tmp_path):
    found = run_cells([Cell("s", f"n{n}", "m", tell_process) for n in range(4)], tmp_path, 2, quiet())
    assert len({row["value"][0] for row in found} | {os.getpid()}) == 5
    assert all(row["value"][1:] == ["1", "1"] for row in found)


@pytest.mark.parametrize(
    ("function", "limits", "status"),
    [
        (fail, {}, "failed: RuntimeError: the cell failed"),
        (leave, {}, "failed: SystemExit: enough"),
        (vanish, {}, "failed: the process ended with exit code 3 before its row"),
        (kill_itself, {}, "killed by signal 9"),
        (not_json, {}, "failed: TypeError: Object of type set is not JSON serializable"),
        (lambda: {}, {}, "failed: "),
        (pause, {"arguments": {"log": os.devnull, "seconds": 60}, "seconds": 0.2}, "timed out after 0.2 s"),
        pytest.param(
            allocate,
            {"memory_bytes": 1 << 29},
            "out of memory: the limit is 0.5 GiB",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts mapped memory"),
        ),
    ],
)
def test_a_failure_is_a_row_and_the_others_go_on(tmp_path, function, limits, status):
    broken = Cell("s", "broken", "m", function, **limits)
    console = quiet()
    found = run_cells([*cells(tmp_path, (1,)), broken, *cells(tmp_path, (2,))], tmp_path, 1, console)
    assert [r.get("value") for r in found] == [2, None, 4]
    assert found[1].failed
    assert found[1]["status"].startswith(status)
    assert "1 cell(s) failed" in console.file.getvalue()
    assert f"s broken m 0: {status}" in console.file.getvalue()


def test_the_memory_limit_leaves_alone_what_fits(tmp_path):
    (row,) = run_cells([Cell("s", "fits", "m", allocate, memory_bytes=3 << 29)], tmp_path, 1, quiet())
    assert row["value"] == 1 << 27


def test_a_failure_is_tried_again_and_its_row_replaced(tmp_path):
    cell = Cell("s", "n", "m", once_broken, {"flag": str(tmp_path / "flag")})
    (first,) = run_cells([cell], tmp_path, 1, quiet())
    assert first["status"] == "failed: ValueError: not yet"
    (second,) = run_cells([cell], tmp_path, 1, quiet())
    assert second["value"] == 7
    assert [r["value"] for r in rows.read(tmp_path / "s.ndjson")] == [7]


def test_two_runs_do_not_write_the_same_suite(tmp_path):
    with (tmp_path / ".s.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is writing rows of suite s"):
            run_cells(cells(tmp_path, (1,)), tmp_path, 1, quiet())
    assert len(run_cells(cells(tmp_path, (1,)), tmp_path, 1, quiet())) == 1


def test_lines_tell_count_failures_rate_and_estimate_where_there_is_no_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr(run_progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(runner, "LINE_SECONDS", 0.05)
    console = quiet()
    run_cells([Cell("s", "broken", "m", fail), *grid(tmp_path, 8)], tmp_path, 1, console)
    said = console.file.getvalue().splitlines()
    assert any(line.startswith("3 of 9 cells, 1 failed, ") and line.endswith("s left") and "cells/s" in line for line in said)


def test_a_cell_starts_only_when_the_row_before_it_is_on_the_disk(tmp_path, monkeypatch):
    append, ahead = rows.append, []

    def slow_append(path, row):
        time.sleep(0.05)
        append(path, row)
        ahead.append(len((tmp_path / "log").read_text().splitlines()) - good_lines_so_far(tmp_path))

    monkeypatch.setattr(rows, "append", slow_append)
    run_cells(grid(tmp_path, 12, seconds=0.005), tmp_path, 2, quiet())
    assert len(ahead) == 12
    assert max(ahead) <= 1  # two workers: one row written, so at most one cell without its row


RUN = """
import io, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_runner import grid, quiet
from eplb_gap.experiments.measuring.runner import run_cells
run_cells(grid(Path({folder!r}), {count}, {seconds}), Path({folder!r}), 2, quiet())
"""


def start(folder, count, seconds=0.02):
    code = RUN.format(tests=str(Path(__file__).parent), folder=str(folder), count=count, seconds=seconds)
    return subprocess.Popen([sys.executable, "-c", code])


def test_a_runner_that_is_killed_at_any_moment_loses_only_what_was_in_flight(tmp_path):
    draw, count = random.Random(0), 160
    for kill in range(STARTS):
        process = start(tmp_path, count)
        target = draw.randrange(30 * kill, 30 * kill + 30)
        wait_until(lambda least=target: good_lines_so_far(tmp_path) >= least)
        time.sleep(draw.random() * 0.04)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert good_lines_so_far(tmp_path) < count
    found = run_cells(grid(tmp_path, count), tmp_path, 2, quiet())
    assert [row["value"] for row in found] == [1] * count
    assert good_lines(tmp_path) == dict.fromkeys((cell.key for cell in grid(tmp_path, count)), 1)
    started = len((tmp_path / "log").read_text().splitlines())
    assert count <= started <= count + 2 * STARTS


def good_lines_so_far(folder):
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*.ndjson"))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_nothing_outlives_a_killed_runner(tmp_path):
    process = start(tmp_path, 2, seconds=60)
    log = tmp_path / "log"
    wait_until(lambda: log.exists() and len(log.read_text().splitlines()) == 2)
    pids = {int(pid) for pid in log.read_text().split()}
    assert len(pids) == 4  # two cells, two servers
    assert all(map(alive, pids))
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(alive, pids)), seconds=5)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a cell ends by itself")
def test_no_cell_outlives_its_killed_server(tmp_path):
    log = tmp_path / "log"

    def kill_server():
        wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
        os.kill(int(log.read_text().split()[1]), signal.SIGKILL)

    killer = threading.Thread(target=kill_server)
    killer.start()
    (row,) = run_cells(grid(tmp_path, 1, seconds=60), tmp_path, 1, quiet())
    killer.join()
    assert row["status"] == "killed by signal 9"
    wait_until(lambda: not alive(int(log.read_text().split()[0])), seconds=5)


@pytest.mark.parametrize("victim", ["cell", "server"])
def test_workers_that_are_killed_at_any_moment_cost_their_cell_alone(tmp_path, victim):
    draw, count, log = random.Random(1), 160, tmp_path / "log"

    def kill_some():
        for kill in range(KILLS):
            wait_until(lambda least=15 * kill + 5: log.exists() and len(log.read_text().splitlines()) >= least)
            time.sleep(draw.random() * 0.04)
            cell, server = map(int, log.read_text().splitlines()[-1].split())
            try:
                os.kill(cell if victim == "cell" else server, signal.SIGKILL)
            except ProcessLookupError:  # it had ended
                continue

    killer = threading.Thread(target=kill_some)
    killer.start()
    found = run_cells(grid(tmp_path, count), tmp_path, 2, quiet())
    killer.join()
    failures = [row for row in found if row.failed]
    assert 1 <= len(failures) <= KILLS
    assert {row["status"] for row in failures} == {"killed by signal 9"}
    assert len(good_lines(tmp_path)) == count - len(failures)
    run_cells(grid(tmp_path, count), tmp_path, 2, quiet())
    assert good_lines(tmp_path) == dict.fromkeys((cell.key for cell in grid(tmp_path, count)), 1)
    assert len(log.read_text().splitlines()) in range(count, count + len(failures) + 1)


def test_ctrl_c_ends_cells_in_flight_and_keeps_rows(tmp_path):
    process = start(tmp_path, 40, seconds=0.2)
    wait_until(lambda: good_lines_so_far(tmp_path) >= 3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) != 0
    pids = {int(pid) for pid in (tmp_path / "log").read_text().split()}
    wait_until(lambda: not any(map(alive, pids)), seconds=5)
    kept = good_lines(tmp_path)
    assert set(kept.values()) == {1}
    assert 3 <= len(kept) < 40
