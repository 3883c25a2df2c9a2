"""What a record folder shows as it grows, against values by hand; metrics that a parser of Prometheus' text format takes."""

from __future__ import annotations

import gc
import math
import re
import shutil
import socket
import struct
import threading
import urllib.error
import urllib.request
import weakref
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from record_folder import CALL, NEW, OLD, call, save

from eplb_gap import InputError, watch
from eplb_gap.analysis.watch import endpoint as served
from eplb_gap.analysis.watch import follow
from eplb_gap.analysis.watch.endpoint import endpoint
from eplb_gap.analysis.watch.follow import Follower
from eplb_gap.analysis.watch.prometheus import Exposition
from eplb_gap.analysis.watch.scored import Score, quick_bounds, scored
from eplb_gap.problem import Deployment
from eplb_gap.problem.formats.containers.record_files import Call, read_call

LOADS = np.array([[6, 6, 3, 3], [0, 0, 0, 12]])


def test_a_window_by_hand() -> None:
    window = scored(call(LOADS, not_recorded=3), 7, OLD)
    # First layer: every GPU holds 6 of 18. Second: 12 tokens on three replicas, of which one GPU holds two, and none need to.
    assert window.served == Score(pytest.approx((6 + 4) / (6 + 8)), pytest.approx(14 / 10 - 1), pytest.approx(8 / 4 - 1))  # type: ignore[arg-type]
    assert (window.model, window.call, window.tokens, window.live_gpus, window.slots) == ("2x4", 7, 30, 3, 12)
    assert (window.samples, window.not_recorded, window.host, window.utc) == (1, 3, "vllm 0.33.0", "2023-11-14T22:13:20Z")


def test_the_bound_of_nodes_counts_whole_groups() -> None:
    loads = np.array([[90, 90, 60, 60, 1, 1, 1, 1]])
    flat = Deployment(8, 16, 8)
    assert quick_bounds(loads, flat) == [Fraction(304, 8)]
    # Four groups on two nodes: the heaviest, 180, with the lightest, 2, on four GPUs at best.
    assert quick_bounds(loads, Deployment(8, 16, 8, num_nodes=2, num_groups=4)) == [Fraction(182, 4)]


@pytest.mark.parametrize(
    ("in_use", "why"),
    [
        (None, "the host did not say"),
        (np.array([[0, 1, 2, 3, -1, -1]] * 2), "slots that hold nothing after a scale-up"),
        (OLD[:, :5], "the deployment had other slots"),
        (np.zeros_like(OLD), "experts without a replica"),
    ],
)
def test_a_map_that_serves_nothing_is_not_scored(in_use: np.ndarray | None, why: str) -> None:
    window = scored(CALL, 1, in_use)
    assert window.served is None, why
    assert window.planned is not None
    assert scored(replace(CALL, deployment=None), 1, OLD).best is None


def test_a_map_that_ignores_nodes_has_the_bounds_without_them() -> None:
    nodes = Deployment(4, 8, 4, num_nodes=2, num_groups=2)
    table = np.array([[0, 2, 1, 3, 0, 2, 1, 3]])
    [served] = [scored(call([[8, 8, 1, 1]], deployment=nodes, in_use=None, answered=None), 1, table).served]
    assert served == Score(1.0, 0.0, 0.0)


def test_calls_are_seen_once_and_the_map_answered_before_is_in_use(tmp_path: Path) -> None:
    save(tmp_path, ((number, call(LOADS + number, in_use=None, answered=table)) for number, table in ((8, OLD), (9, NEW))))
    follower = Follower(tmp_path, last=1)
    [window] = follower.new()
    assert window == scored(call(LOADS + 9, in_use=None, answered=NEW), 9, OLD)
    assert follower.new() == []
    save(tmp_path, [(10, call(LOADS, in_use=None, deployment=Deployment(4, 6, 2))), (11, call([[1, 2]], deployment=None,
                    in_use=None, answered=None)), (12, call(LOADS))])  # fmt: skip
    assert [(window.call, window.served is None) for window in follower.new()] == [(10, True), (11, True), (12, False)]
    assert [window.call for window in watch(tmp_path, last=1)] == [11, 12]


def test_a_folder_may_go_away_come_back_lose_files_and_hold_broken_ones(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    paths = save(folder, [(number, CALL) for number in (5, 6)])
    follower = Follower(folder, last=5)
    assert len(follower.new()) == 2
    shutil.move(folder, tmp_path / "elsewhere")
    assert follower.new() == []
    save(folder, [(1, CALL), (2, CALL)])  # numbers begin anew
    assert [window.call for window in follower.new()] == [1, 2]
    paths = save(folder, [(3, CALL), (4, CALL)])
    paths[0].write_bytes(b"PK\x03\x04 damaged")
    assert [window.call for window in follower.new()] == [4]
    assert len(follower.broken) == 1
    assert str(paths[0]) in follower.broken[0]
    assert follower.new() == []
    assert follower.broken == []
    with pytest.raises(InputError, match="is truncated or no npz file"):
        watch(folder)
    said: list[str] = []
    assert [window.call for window in watch(folder, left_out=said.append)] == [1, 2, 4]
    assert len(said) == 1
    with pytest.raises(InputError, match="is truncated or no npz file"):
        watch(_spoiled(tmp_path / "alone"), left_out=said.append)


def _spoiled(folder: Path) -> Path:
    save(folder, [(1, CALL)])[0].write_bytes(b"broken")
    return folder


def test_what_an_unreadable_call_answered_is_not_known(tmp_path: Path) -> None:
    paths = save(tmp_path, ((number, call(LOADS, in_use=None, answered=OLD)) for number in range(1, 5)))
    paths[1].write_bytes(b"broken")
    assert [window.served is None for window in Follower(tmp_path, last=5).new()] == [True, True, False]


def test_loads_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def read(path: Path) -> Call:
        found = read_call(path)
        kept.append(weakref.ref(found.counts))
        return found

    monkeypatch.setattr(follow, "read_call", read)
    save(tmp_path, [(1, CALL), (2, CALL)])
    follower = Follower(tmp_path, last=5)
    windows = follower.new()
    gc.collect()
    assert len(windows) == len(kept) == 2
    assert [counts() for counts in kept] == [None, None]


def test_a_folder_of_broken_calls_may_begin_anew(tmp_path: Path) -> None:
    [path] = save(tmp_path, [(5, CALL)])
    path.write_bytes(b"broken")
    follower = Follower(tmp_path, last=5)
    assert (follower.new(), len(follower.broken)) == ([], 1)
    path.unlink()
    save(tmp_path, [(1, CALL)])
    assert [window.call for window in follower.new()] == [1]


def test_a_call_that_cannot_be_scored_is_named_and_the_others_are_shown(tmp_path: Path) -> None:
    huge = call(np.full((2, 4), (1 << 64) - 1, dtype=np.uint64))
    paths = save(tmp_path, [(1, CALL), (2, huge), (3, CALL)])
    follower = Follower(tmp_path, last=5)
    assert [window.call for window in follower.new()] == [1, 3]
    [said] = follower.broken
    assert str(paths[1]) in said


def test_what_is_no_record_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no recorded calls"):
        watch(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        watch(tmp_path / "typo")
    with pytest.raises(InputError, match="last is 0"):
        watch(tmp_path, last=0)


SAMPLE = re.compile(r'(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)\{model="(?P<model>[^"\\\n]*)"\} (?P<value>\S+)')


def parsed(text: str) -> dict[str, dict[str, float]]:
    """Return name -> model -> value of a text that is as Prometheus' format demands; fail where it is not."""
    found: dict[str, dict[str, float]] = {}
    kinds: dict[str, str] = {}
    assert text.endswith("\n")
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in kinds, "a family comes once"
            assert lines[number + 1].startswith(f"# TYPE {name} ")
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind == ("counter" if name.endswith("_total") else "gauge")
            kinds[name] = kind
        else:
            sample = SAMPLE.fullmatch(line)
            assert sample, line
            assert sample["name"] == list(kinds)[-1], "samples follow their TYPE line"
            models = found.setdefault(sample["name"], {})
            assert sample["model"] not in models
            models[sample["model"]] = float(sample["value"])
            assert math.isfinite(models[sample["model"]])
    assert set(found) == set(kinds), "no family without a sample"
    return found


def test_metrics_of_the_newest_windows_and_sums_of_all() -> None:
    exposition = Exposition(counting=True)
    exposition.add(scored(call(loads), number, OLD) for number, loads in enumerate((LOADS, LOADS + 1), 1))
    exposition.add([scored(call([[1, 2]], deployment=None, in_use=None, answered=None, not_recorded=4), 3, None)])
    found = parsed(exposition.text())
    newest = scored(call(LOADS + 1), 2, OLD)
    assert newest.served is not None
    assert newest.moved is not None
    assert found["eplb_gap_served_gap_ratio"] == {"2x4": newest.served.gap}
    assert found["eplb_gap_served_balancedness_ratio"] == {"2x4": newest.served.balancedness}
    assert found["eplb_gap_calls_total"] == {"1x2": 1, "2x4": 2}
    assert found["eplb_gap_routed_tokens_total"] == {"1x2": 3, "2x4": 30 + 38}
    assert found["eplb_gap_moved_replicas_total"] == {"1x2": 0, "2x4": 2 * newest.moved}
    assert found["eplb_gap_moved_replicas"] == {"2x4": newest.moved}
    assert found["eplb_gap_not_recorded_calls_total"] == {"1x2": 4, "2x4": 0}
    assert found["eplb_gap_last_call_timestamp_seconds"] == {"1x2": 1.7e9, "2x4": 1.7e9}
    assert Exposition(counting=True).text() == ""
    once = Exposition(counting=False)
    once.add([newest])
    assert not [name for name in parsed(once.text()) if name.endswith("_total")]


def test_metrics_are_served_on_this_machine_alone() -> None:
    with endpoint(0, lambda: "eplb_gap 1\n") as address:
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address, timeout=5) as answer:
            assert answer.read() == b"eplb_gap 1\n"
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(address.replace("/metrics", "/other"), timeout=5)
        assert refused.value.code == 404
        refused.value.close()
        with (
            pytest.raises(InputError, match=r"port \d+ cannot be served"),
            endpoint(_port(address), str),
        ):
            pass
    with pytest.raises(InputError, match="port is 65536"), endpoint(65536, str):
        pass


@pytest.mark.parametrize("fault", [False, True])
def test_clients_that_hang_up_are_quiet_and_faults_are_not(fault: bool, capsys: pytest.CaptureFixture[str]) -> None:
    asked, gone, threads = threading.Event(), threading.Event(), []

    def text() -> str:
        threads.append(threading.current_thread())
        asked.set()
        gone.wait(5)
        if fault:
            raise ValueError("a fault of ours")
        return "eplb_gap 1\n" * 1000

    with endpoint(0, text) as address, socket.create_connection(("127.0.0.1", _port(address)), timeout=5) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert asked.wait(5)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, as of a killed client
        client.close()
        gone.set()
        threads[0].join(5)
    said = capsys.readouterr().err
    assert "a fault of ours" in said if fault else said == ""


def test_clients_that_say_nothing_are_let_go(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(served, "TIMEOUT", 0.1)
    with endpoint(0, str) as address, socket.create_connection(("127.0.0.1", _port(address)), timeout=5) as client:
        assert client.recv(1) == b""
    assert capsys.readouterr().err == ""


def _port(address: str) -> int:
    return int(address.split(":")[2].split("/")[0])
