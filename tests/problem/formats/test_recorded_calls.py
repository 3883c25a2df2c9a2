"""Record folders as loads and as maps: order, models, deployments, and files that are not what they say."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_folder import CALL, DEPLOYMENT, NEW, OLD, call, save

from eplb_gap import evaluate, read_problem, replay
from eplb_gap.cli.asking import DuplicatesChoice, Question
from eplb_gap.heuristics.control.controllers_file import parse_controller
from eplb_gap.problem import Deployment, InputError
from eplb_gap.problem.formats import read, read_map
from eplb_gap.problem.formats.containers.record_files import read_call
from eplb_gap.problem.formats.loads import recorded_calls
from eplb_gap.problem.formats.loads.recorded_calls import recorded_deployment

LOADS = np.arange(1, 41).reshape(5, 2, 4)


def test_calls_come_by_number_whatever_their_names_sort_like(tmp_path: Path) -> None:
    numbers = (999_999_999, 1_000_000_000, 10_000_000_000)
    rest = call(LOADS[2:], time=1.7e9 + 60, history=True, not_recorded=2, deployment=Deployment(4, 8, 4))
    save(tmp_path, zip(numbers, (call(LOADS[0]), call(LOADS[1]), rest), strict=True))
    trace = read(tmp_path)
    assert np.array_equal(trace.loads, LOADS)
    told = trace.provenance
    assert (told["format"], told["host"], told["calls"], told["not_recorded_calls"]) == ("eplb-gap-record", "vllm 0.33.0", 3, 2)
    assert told["recorded_seconds"] == [1.7e9, 1.7e9 + 60]
    assert told["deployment_changes"] == 1
    assert told["deployment"] == Deployment(4, 8, 4).as_dict()
    assert np.array_equal(read(tmp_path, window=2).loads, [LOADS[1:3].sum(axis=0), LOADS[3:].sum(axis=0)])


def test_evaluate_and_replay_on_a_folder_alone(tmp_path: Path) -> None:
    save(tmp_path, enumerate(map(call, LOADS), 1))
    asked = read_problem(tmp_path)
    assert asked.deployment == DEPLOYMENT
    served = read_map(tmp_path, asked.deployment, layer_ids=asked.layer_ids)
    assert np.array_equal(served.phy2log, OLD)  # type: ignore[union-attr]
    found = evaluate(asked.trace, asked.deployment, served, seconds=1)
    assert found.serving.makespans[0] == 35 + 36  # experts 2 and 3 share a GPU, each its only replica
    assert len(replay(asked.trace, asked.deployment, [parse_controller("none")]).runs) == 1


def test_the_deployment_of_the_newest_call_can_be_changed(tmp_path: Path) -> None:
    dead = Deployment(4, 6, 3, active=[True, False, True])
    uneven = Deployment(4, slots_per_gpu=[1, 3, 2])
    for folder, deployment in (("dead", dead), ("uneven", uneven)):
        save(tmp_path / folder, enumerate((call(LOADS[0]), call(LOADS[1], deployment=deployment)), 1))
        assert read_problem(tmp_path / folder, policy="global").deployment == deployment
    assert read_problem(tmp_path / "dead", num_slots=9, dead_gpus=[]).deployment == Deployment(4, 9, 3)
    assert recorded_deployment(tmp_path) is None
    save(tmp_path / "unknown", [(1, call(LOADS[0], deployment=None))])
    with pytest.raises(InputError, match="deployment is missing"):
        read_problem(tmp_path / "unknown")


def test_duplicates_are_as_recorded_unless_said_otherwise(tmp_path: Path) -> None:
    forbidden = Deployment(4, 6, 3, duplicates="forbidden")
    save(tmp_path, [(1, call(LOADS[0], deployment=forbidden))])
    assert read_problem(tmp_path).deployment == Question([tmp_path]).read().deployment == forbidden
    assert read_problem(tmp_path, duplicates="allowed").deployment == DEPLOYMENT
    assert Question([tmp_path], duplicates=DuplicatesChoice.allowed).read().deployment == DEPLOYMENT
    assert read_problem(tmp_path, num_slots=6, num_gpus=3).deployment == DEPLOYMENT


def test_files_that_can_be_gone_through_once_are_a_record_too(tmp_path: Path) -> None:
    paths = save(tmp_path, enumerate((call(loads, time=1.7e9 + second) for second, loads in enumerate(LOADS)), 1))
    asked = read_problem(iter(paths))
    assert asked.deployment == DEPLOYMENT
    assert np.array_equal(asked.trace.loads, LOADS)


def test_models_do_not_mix(tmp_path: Path) -> None:
    save(tmp_path, [(1, call(LOADS[0])), (2, call([[5, 6]], deployment=None, in_use=None, answered=None))])
    for ask in (read, recorded_deployment):
        with pytest.raises(InputError, match=r"2 models; name the folder of one: .*model_1x2, .*model_2x4"):
            ask(tmp_path)
    assert read(tmp_path / "eplb_gap_model_1x2").loads.tolist() == [[[5, 6]]]
    file = tmp_path / "eplb_gap_model_2x4" / "eplb_gap_call_000000001.npz"
    assert np.array_equal(read(file).loads, LOADS[:1])
    assert recorded_deployment(file) == DEPLOYMENT
    file.rename(tmp_path / "renamed.npz")
    assert read(tmp_path / "renamed.npz").provenance["format"] == "eplb-gap-record"


def test_the_newest_calls_are_read_where_all_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, enumerate(map(call, LOADS), 1))
    monkeypatch.setattr(recorded_calls, "MAX_ELEMENTS", 3 * LOADS[0].size)
    trace = read(tmp_path)
    assert np.array_equal(trace.loads, LOADS[2:])
    assert trace.provenance["older_calls"] == 2


def test_oldest_calls_may_vanish_while_the_others_are_read(tmp_path: Path) -> None:
    paths = save(tmp_path, enumerate(map(call, LOADS), 1))
    trace = recorded_calls.read(tmp_path, lambda _done, _total: paths[1].unlink(missing_ok=True))
    assert np.array_equal(trace.steps, LOADS[2:])


def spoil(path: Path, how: str) -> None:
    """Make a file one that cannot be read."""
    whole = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    else:
        path.write_bytes({"junk": b"junk", "empty": b"", "truncated": whole[: len(whole) // 2]}[how])


@pytest.mark.parametrize("how", ["junk", "empty", "truncated", "folder"])
def test_a_broken_file_is_left_out_and_named(tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    paths = save(tmp_path, enumerate((call(loads, in_use=None, answered=OLD) for loads in LOADS), 1))
    (tmp_path / paths[0].name).write_bytes(b"no model's")
    spoil(paths[4], how)
    asked = read_problem(tmp_path)
    assert asked.deployment == DEPLOYMENT
    assert np.array_equal(asked.trace.loads, LOADS[:4])
    [notice] = asked.trace.provenance["notices"]
    assert re.match(f"left out: (file )?{re.escape(str(paths[4]))} ", notice)
    assert asked.trace.provenance["broken_calls"] == 1
    assert "older_calls" not in asked.trace.provenance
    assert np.array_equal(read_map(tmp_path, DEPLOYMENT).phy2log, OLD)  # type: ignore[union-attr]
    Question([tmp_path]).read()
    assert notice in capsys.readouterr().err
    if how != "folder":
        for ask in (read, recorded_deployment):
            with pytest.raises(InputError, match=re.escape(str(paths[4]))):
                ask(paths[4])
    spoil(paths[2], "junk")
    with pytest.raises(InputError, match=re.escape(str(paths[2]))):  # it said which map served the loads of the fourth
        read_map(tmp_path, DEPLOYMENT)
    for path in (paths[0], paths[1], paths[3]):
        spoil(path, "empty")
    for ask in (read, recorded_deployment):
        with pytest.raises(InputError, match=re.escape(str(paths[4]))):
            ask(tmp_path)


def test_many_broken_files_are_a_few_lines(tmp_path: Path) -> None:
    [kept, *_] = save(tmp_path, [(1, CALL)])
    for number in range(2, 25):
        kept.with_name(f"eplb_gap_call_{number:09d}.npz").touch()
    notices = read(tmp_path).provenance["notices"]
    assert len(notices) == 21
    assert notices[-1] == "left out: 3 more files that cannot be read"
    assert "000000024" in notices[0]


def test_the_map_in_use_is_the_hosts_or_the_one_answered_before(tmp_path: Path) -> None:
    ids = {"layer_ids": [3, 7]}
    save(tmp_path, [(1, call(LOADS[0], **ids)), (2, call(LOADS[1], in_use=None, answered=OLD, **ids))])
    assert np.array_equal(read_map(tmp_path, DEPLOYMENT).phy2log, NEW)  # type: ignore[union-attr]
    assert np.array_equal(read_map(tmp_path, DEPLOYMENT, layer_ids=[7]).phy2log, NEW[1:])  # type: ignore[union-attr]
    with pytest.raises(InputError, match="has no layer 4"):
        read_map(tmp_path, DEPLOYMENT, layer_ids=[3, 4])
    with pytest.raises(InputError, match="has 6 slots; the deployment has 8 slots"):
        read_map(tmp_path, Deployment(4, 8, 4))
    [last] = save(tmp_path, [(3, call(LOADS[0], in_use=np.where(OLD == 3, -1, OLD)))])
    with pytest.raises(InputError, match=r"map in use in file .*\[0\]\[3\] is -1"):
        read_map(last, DEPLOYMENT)
    [last] = save(tmp_path / "other", [(3, call(LOADS[0], in_use=None))])
    with pytest.raises(InputError, match="does not say which map was in use"):
        read_map(last, DEPLOYMENT)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("time", -1, "time is -1; seconds since 1970"),
        ("time", True, "time is True"),
        ("time", 10**400, "time is 1000"),
        ("host", "a\nb", "host is 'a\\\\nb'"),
        ("history", 1, "history is 1"),
        ("layer_ids", [2, 1], "layer_ids is"),
        ("layer_ids", [1], "layer_ids has 1 entries"),
        ("not_recorded", -1, "not_recorded is -1"),
        ("version", 2, "version is 2; 1 is needed"),
        ("deployment", {**DEPLOYMENT.as_dict(), "num_gpus": 10**9}, "num_gpus is 1000000000; a number up to"),
        ("deployment", {**DEPLOYMENT.as_dict(), "num_gpus": 4}, "num_gpus is 4; a divisor"),
        ("deployment", {**DEPLOYMENT.as_dict(), "num_experts": 3}, "the deployment has 3 experts; the loads have 4"),
        ("more", 1, "unknown field 'more'"),
        ("counts", np.ones((2, 4), dtype=np.uint8), "counts is uint8 of shape"),
        ("counts", np.ones((1, 2, 4), dtype=np.int8), "counts is int8"),
        ("counts", np.ones((1, 2, 3), dtype=np.uint8), "is no map of the 2 layers of 3 experts"),
        ("in_use", np.full((2, 6), -2, dtype=np.int8), "in_use is int8"),
        ("answered", np.full((2, 6), 4, dtype=np.int8), "answered of shape"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, entry: str, value: Any, message: str) -> None:
    [path] = save(tmp_path, [(1, CALL)])
    with np.load(path) as archive:
        entries = dict(archive)
    told = json.loads(entries["call"].tobytes())
    if isinstance(value, np.ndarray):
        entries[entry] = value
    else:
        told[entry] = value
    entries["call"] = np.frombuffer(json.dumps(told).encode(), dtype=np.uint8)
    np.savez(path, **entries)
    with pytest.raises(InputError, match=message) as refused:
        read(tmp_path)
    assert str(path) in str(refused.value)


def test_a_file_that_unpacks_to_gigabytes_is_refused_before_it_does(tmp_path: Path) -> None:
    [path] = save(tmp_path, [(1, CALL)])
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (1 << 21, 1 << 10, 1)})
    with np.load(path) as archive:
        told = archive["call"]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("call.npy", "w") as file:
            np.save(file, told)
        archive.writestr("counts.npy", head.getvalue())
        archive.getinfo("counts.npy").file_size = 1 << 40
    with pytest.raises(InputError, match=r"claims 1099511627776 bytes"):
        read_call(path)
