"""The recorder of the plug-ins: what is handed over comes back from the files, and whatever fails, the server goes on."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from eplb_gap.heuristics.plugins import MEGABYTES, RECORD, recording
from eplb_gap.heuristics.plugins.recording import RANKS, flush, record_call
from eplb_gap.problem import Deployment, Placement
from eplb_gap.problem.formats.containers.record_files import call_paths, model_folders, read_call

DEPLOYMENT = Deployment(4, 6, 3)
LOADS = np.arange(1, 9).reshape(2, 4)
OLD = np.array([[0, 1, 2, 3, 0, 1], [3, 2, 1, 0, 3, 3]])
NEW = np.array([[0, 1, 2, 3, 2, 3], [3, 2, 1, 0, 1, 0]])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in (*RANKS, MEGABYTES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(RECORD, str(tmp_path / "new" / "records"))
    monkeypatch.setattr(recording, "_RECORDERS", {})
    yield tmp_path / "new" / "records"
    for recorder in recording._RECORDERS.values():  # noqa: SLF001
        assert recorder.flush(60)


def record(loads: Any = LOADS, **more: Any) -> None:
    record_call("numpy", loads, DEPLOYMENT, OLD, NEW, **more)
    assert flush(60)


def files(folder: Path) -> list[Path]:
    return [path for model in model_folders(folder) for path in call_paths(model)]


def test_loads_are_kept_without_what_is_no_map_of_them(folder: Path) -> None:
    for table in (OLD[:1], OLD[0], OLD + 4, OLD - 2, OLD.astype(float), OLD[:, :0], "map"):
        record_call("numpy", LOADS, DEPLOYMENT, table, NEW)
    assert flush(60)
    found = [read_call(path) for path in files(folder)]
    assert len(found) == 7 and all(call.in_use is None and np.array_equal(call.answered, NEW) for call in found)


def test_a_call_comes_back_as_it_was(folder: Path) -> None:
    before = time.time()
    record()
    history = np.random.default_rng(0).integers(0, 70_000, (5, 2, 4))
    dead = Deployment(4, 6, 3, active=[True, False, True])
    record_call("no-such-host", history, dead, None, Placement(NEW, 4), layer_ids=[3, 5], rank=0)
    assert flush(60)
    first, second = (read_call(path) for path in files(folder))
    assert np.array_equal(first.counts, LOADS[None])
    assert not first.history
    assert (first.host, first.host_version) == ("numpy", np.__version__)
    assert before <= first.time <= time.time()
    assert first.deployment == DEPLOYMENT
    assert np.array_equal(first.in_use, OLD)
    assert np.array_equal(first.answered, NEW)
    assert np.array_equal(second.counts, history)
    assert second.history
    assert (second.host_version, second.deployment, second.layer_ids) == ("unknown", dead, [3, 5])
    assert second.in_use is None
    with np.load(files(folder)[0], allow_pickle=False) as plain:
        assert np.array_equal(plain["counts"], LOADS[None])


def test_the_host_may_fill_its_arrays_anew_while_they_wait(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = held_up(monkeypatch)
    for loads in (LOADS.copy(), np.array([LOADS, LOADS]), np.array([LOADS, LOADS], dtype=float)):
        record_call("numpy", loads, DEPLOYMENT, None, None)
        loads[...] = 0
    go_on()
    assert [int(read_call(path).counts.sum()) for path in files(folder)] == [36, 72, 72]


def held_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the disk hang until the function that is returned is called."""
    free, write = threading.Event(), recording.write_call

    def hang(file: Any, call: Any) -> None:
        assert free.wait(60)
        write(file, call)

    monkeypatch.setattr(recording, "write_call", hang)

    def go_on() -> None:
        free.set()
        assert flush(60)

    return go_on


def test_nothing_is_written_without_the_setting_or_on_other_ranks_or_without_load(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(np.zeros((2, 4)))  # vLLM's call while it measures its memory
    record(rank=1)
    monkeypatch.setenv("RANK", "3")
    record()
    distributed = SimpleNamespace(is_available=lambda: True, is_initialized=lambda: True, get_rank=lambda: 2)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setitem(sys.modules, "torch.distributed", distributed)
    record()
    monkeypatch.delenv(RECORD)
    record(rank=0)
    assert not folder.exists()
    distributed.get_rank = lambda: 0
    monkeypatch.setenv(RECORD, str(folder))
    record()
    assert [path.name for path in files(folder)] == ["eplb_gap_call_000000001.npz"]


def test_models_do_not_mix_and_a_server_that_starts_again_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record()
    record_call("numpy", [[1, 2]], Deployment(2, 2, 2), None, None)
    assert flush(60)
    held = recording._RECORDERS.pop(str(folder))  # noqa: SLF001
    os.close(held._held)  # noqa: SLF001  # as the process's end does
    (folder / "eplb_gap_model_2x4" / ".0-1.partial").touch()
    os.utime(folder / "eplb_gap_model_2x4" / ".0-1.partial", (0, 0))
    record()
    assert [str(path.relative_to(folder)) for path in files(folder)] == [
        "eplb_gap_model_1x2/eplb_gap_call_000000002.npz",
        "eplb_gap_model_2x4/eplb_gap_call_000000001.npz",
        "eplb_gap_model_2x4/eplb_gap_call_000000003.npz",
    ]
    assert not list(folder.rglob("*.partial"))


def test_the_oldest_calls_make_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEGABYTES, "0.02")  # four files of a block each
    for number in range(7):
        record(LOADS + number)
    assert [int(read_call(path).counts[0, 0, 0]) for path in files(folder)] == [4, 5, 6, 7]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 20_000
    noise = np.random.default_rng(0).integers(0, 1 << 40, (40, 2, 4))
    record(np.repeat(noise, 100, axis=0) + np.random.default_rng(1).integers(0, 1 << 40, (4000, 2, 4)))
    assert len(files(folder)) == 4  # one that is too large for all of the room pushes nothing out


@pytest.mark.parametrize(
    ("loads", "kept"),
    [
        (LOADS.astype(np.float32), LOADS),
        (LOADS + 2.0**40, LOADS + (1 << 40)),
        (1000 * LOADS + 0.25, 1000 * LOADS),
        (LOADS / 100, None),
        (LOADS + np.nan, None),
        (-LOADS, None),
        (LOADS.astype(str), None),
        (LOADS[0], None),
        (np.full((2, 4), np.iinfo(np.int64).max), None),
    ],
)
def test_integral_numbers_are_kept_and_others_rounded_where_that_changes_little(folder: Path, loads: Any, kept: Any) -> None:
    record(loads)
    assert len(files(folder)) == (kept is not None) if folder.exists() else kept is None
    if kept is not None:
        call = read_call(files(folder)[0])
        assert np.array_equal(call.counts[0], kept)
        assert call.rounded == (loads.ravel()[0] % 1 != 0)


def full_disk(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    def fail(file: Any, call: Any) -> None:
        file.write(b"some of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(recording, "write_call", fail)


def read_only(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    def fail(*_: Any, **__: Any) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(recording.os, "open", fail)


def no_folder(_monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.parent.write_text("a file is in the way")


def a_file(_monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("a file is there")


def bad_limit(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    monkeypatch.setenv(MEGABYTES, "much")


def bad_check(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    monkeypatch.setattr(recording, "_if_map", lambda *_: 1 / 0)


def own_error(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    monkeypatch.setattr(recording, "_copied", lambda _: 1 / 0)


FAILURES = {
    full_disk: "No space left",
    read_only: "Read-only file system",
    no_folder: "Not a directory",
    a_file: f"{RECORD} is a file; a folder is needed; the server goes on",
    bad_limit: f"{MEGABYTES} is 'much'",
    bad_check: "division by zero",
    own_error: "division by zero",
}


@pytest.mark.parametrize("fail", FAILURES)
def test_a_failure_is_one_line_and_a_number_in_the_next_file(
    fail: Callable[..., None], folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO, "eplb_gap"):
        fail(patch, folder)
        for _ in range(3):
            record()
    assert [entry.levelname for entry in caplog.records if entry.levelno > logging.INFO] == ["WARNING"]
    assert FAILURES[fail] in caplog.text
    assert "1 calls are not recorded" in caplog.text
    assert not folder.exists() or not [path for path in folder.rglob("*") if path.suffix in (".npz", ".partial")]
    if fail is no_folder:
        folder.parent.unlink()
    elif fail is a_file:
        folder.unlink()
    record()
    record()
    assert [read_call(path).not_recorded for path in files(folder)] == [3, 0]


def test_a_folder_that_vanishes_is_made_anew(folder: Path) -> None:
    record()
    shutil.move(folder, folder.with_name("moved away"))
    record()
    assert len(files(folder)) == len(files(folder.with_name("moved away"))) == 1


@pytest.mark.parametrize("limit", ["MOST_WAITING", "MOST_WAITING_BYTES"])
def test_a_disk_that_hangs_holds_no_call_up_and_no_memory(
    limit: str, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    size = sum(array.nbytes for array in (LOADS, OLD, NEW))
    monkeypatch.setattr(recording, limit, 3 if limit == "MOST_WAITING" else 3 * size)
    go_on = held_up(monkeypatch)
    started = time.perf_counter()
    for _ in range(40):
        record_call("numpy", LOADS, DEPLOYMENT, OLD, NEW)
    assert time.perf_counter() - started < 5
    assert "faster than they can be written" in caplog.text
    go_on()
    record()
    *kept, newest = (read_call(path) for path in files(folder))
    assert len(kept) in (3, 4)  # three wait, and one may be with the writer
    assert newest.not_recorded + sum(call.not_recorded for call in kept) == 40 - len(kept)


PROCESSES = """
import json, os, signal, sys, time
import numpy as np
from eplb_gap.heuristics.plugins.recording import record_call, flush

def record(host, count):
    for number in range(count):
        record_call(host, np.full((3, 64), number + 1), None, None, None)
        assert flush(60)

def forked(work):
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    return child

folder = os.environ["EPLB_GAP_RECORD"]
model = os.path.join(folder, "eplb_gap_model_3x64")
first = forked(lambda: record("first", 10**9))
while not os.path.isdir(model) or len(os.listdir(model)) < 5:
    time.sleep(0.001)
second = forked(lambda: record("second", 5))
os.waitpid(second, 0)
os.kill(first, signal.SIGKILL)
os.waitpid(first, 0)
third = forked(lambda: record("third", 2))
os.waitpid(third, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_one_of_several_processes_writes_and_a_kill_leaves_files_that_are_whole(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", PROCESSES], env={**os.environ, RECORD: str(folder)}, check=True, timeout=120)
    hosts = [read_call(path).host for path in files(folder)]
    assert hosts == ["first"] * (len(hosts) - 2) + ["third"] * 2
    assert len(hosts) >= 6
    numbers = [int(path.stem.rpartition("_")[2]) for path in files(folder)]
    assert numbers == list(range(1, len(hosts) + 1))


def test_without_locks_rank_0_writes_and_others_say_so(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", none)
    record()
    assert "No locks available" in caplog.text
    record(rank=0)
    assert len(files(folder)) == 1


def test_a_second_server_in_the_folder_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(recording, "_locked", lambda *_: False)
    record()  # of an unknown rank: the other one writes
    assert caplog.text == ""
    record(rank=0)
    assert "another server records into this folder" in caplog.text
    assert json.dumps([path.name for path in files(folder)]) == "[]"
