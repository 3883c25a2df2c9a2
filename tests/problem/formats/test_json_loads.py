from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eplb_gap.experiments.fuzzing.format_samples import sample_loads, write_samples
from eplb_gap.problem import InputError, LoadTrace
from eplb_gap.problem.formats import read
from eplb_gap.problem.formats.loads import adrs, cached

LOADS = sample_loads()


def history(*steps: Any) -> str:
    return json.dumps({"load_history": [{"logical_expert_load": step} for step in steps]})


def refused(tmp_path: Path, text: str, format: str, message: str) -> None:
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path / "file.json", format)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ([[1, 2], [3]], r"load_history\[1\]\['logical_expert_load'\]: layer 0 has 2 experts and layer 1 has 1; "),
        ([[1, 2]], r"load_history\[1\] has \(1, 2\) layers and experts; \(2, 2\)"),
        ([[1, 2], [3, -4]], r"loads\[1, 1, 1\] is -4"),
        ([[1, 2], [3, 1.5]], r"\[1\]\[1\] is 1.5, a fraction; an integer"),
        ([[1, 2], [3, "4"]], r"\[1\]\[1\] is '4'; an integer"),
        ([[1, 2], [3, True]], r"\[1\]\[1\] is True; an integer"),
        ([[1, 2], [3, None]], r"\[1\]\[1\] is None; an integer"),
        ([[1, 2], [3, [4]]], r"\[1\]\[1\] is \[4\]; an integer"),
        ([[1, 2], [3, 2**63]], "integer overflow"),
        ([[1, 2], [3, 2**62]], "small enough for a layer's sum"),
        ([[1, 2], [3, 1e300]], r"is 1e\+300; an integer"),
        ([[1, 2], []], "a list of integers that is not empty"),
        ([], "a list of one list per layer"),
        ("x" * 1000, "a list of one list per layer"),
        (3, "is 3; a list"),
    ],
)
def test_steps_that_are_none(tmp_path: Path, step: Any, message: str) -> None:
    refused(tmp_path, history([[1, 2], [3, 4]], step), "adrs", message)


def test_integral_floats_are_counts(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text(history([[1.0, 2], [3e1, 4]]))
    assert read(tmp_path / "file.json").loads.tolist() == [[[1, 2], [30, 4]]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"load_history": []}', "has no records"),
        ('{"load_history": 3}', "has no records"),
        ('{"load_history": [{"load": [[1]]}]}', r"load_history\[0\] has no key 'logical_expert_load'"),
        (history([[1, 2]])[:-3], "no JSON, or cut off"),
        (history([[1, 2]]) + "}", "no JSON, or cut off"),
        (history([[1, 2]]).replace("1", "NaN"), "no JSON, or cut off"),
        ('{"load_history": [' + "[" * 600, "nested more than 500 deep"),
        ('{"load_history": [' + "[" * 100, "no JSON, or cut off"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    refused(tmp_path, text, "adrs", message)


def test_brackets_in_strings_do_not_nest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adrs, "CHUNK_BYTES", 3)  # strings and escapes are cut by chunks
    odd = '\\"[{' * 600 + "\\\\"
    (tmp_path / "file.json").write_text('{"note": "' + odd + '", "load_history": [{"logical_expert_load": [[1, 2]]}]}')
    assert read(tmp_path / "file.json", "adrs").loads.tolist() == [[[1, 2]]]
    refused(tmp_path, '{"note": "' + "]" * 600 + '", "load_history": [' + "[" * 600, "adrs", "nested more than 500 deep")


def test_a_record_without_end_is_refused_before_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adrs, "MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(adrs, "CHUNK_BYTES", 100)
    refused(tmp_path, history([[1] * 2000]), "adrs", "hold no whole record")
    (tmp_path / "file.json").write_text(history(*[[[1] * 200]] * 10))
    assert read(tmp_path / "file.json").loads.shape == (10, 1, 200)


def test_progress_is_reported_up_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adrs, "CHUNK_BYTES", 16)
    path = write_samples(tmp_path, "adrs")
    told: list[tuple[int, int]] = []
    read(path, progress=lambda done, total: told.append((done, total)))
    size = path.stat().st_size
    assert told[-1] == (size, size)
    assert told == sorted(told)
    assert len(told) == -(-size // 16)


def test_a_large_file_is_copied_as_a_trace_and_read_anew_once_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "MIN_BYTES", 0)
    path = write_samples(tmp_path, "adrs")
    copy = tmp_path / f"{path.name}.eplb-gap.npz"
    first = read(path, window=2)
    assert first.provenance["cache"] == f"written to {copy.name}"
    assert np.array_equal(LoadTrace.load(copy).loads, LOADS)
    again = read(path, window=2)
    assert again.provenance["cache"] == f"read from {copy.name}"
    assert np.array_equal(again.loads, first.loads)
    path.write_text(history([[5, 6]]))
    assert read(path).loads.tolist() == [[[5, 6]]]
    copy.write_bytes(b"broken")
    assert read(path).loads.tolist() == [[[5, 6]]]
    assert read(path).provenance["cache"] == f"read from {copy.name}"


def test_without_a_writable_folder_there_is_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: Any, **_arrays: Any) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(cached, "MIN_BYTES", 0)
    monkeypatch.setattr(np, "savez_compressed", full)
    trace = read(write_samples(tmp_path, "adrs"))
    assert "cannot be written (no space left)" in trace.provenance["cache"]
    assert np.array_equal(trace.loads, LOADS)


def test_small_files_are_not_copied(tmp_path: Path) -> None:
    path = write_samples(tmp_path, "adrs")
    assert "cache" not in read(path).provenance
    assert list(tmp_path.iterdir()) == [path]


def snapshots(tmp_path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(write_samples(tmp_path, "vllm-snapshots").read_text())
    return document


def test_snapshots_say_how_long_their_windows_are(tmp_path: Path) -> None:
    found = read(write_samples(tmp_path, "vllm-snapshots")).provenance
    assert (found["window_steps"], found["recorded_steps"]) == (50, [100, 400])
    assert "changed 0 times" in found["maps"]
    assert "overlap" not in found
    assert read(tmp_path / "model.json", window=100).loads.shape[0] == 2


def test_snapshots_that_share_steps_or_change_the_map_say_so(tmp_path: Path) -> None:
    document = snapshots(tmp_path)
    document["window_size"] = 101
    document["snapshots"][2]["physical_to_logical_map"][0] = [0, 1, 2, 3, 3, 3]
    (tmp_path / "model.json").write_text(json.dumps(document))
    found = read(tmp_path / "model.json").provenance
    assert "changed 2 times" in found["maps"]
    assert "share tokens" in found["overlap"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["snapshots"], [], "no list of snapshots"),
        (["snapshots", 1, "step"], 100, "of step 100 after step 100"),
        (["snapshots", 1, "step"], 2.5, r"\['step'\] is 2.5"),
        (["snapshots", 1, "window_expert_load", 0, 0], -1, "must be non-negative"),
        (["snapshots", 1, "window_expert_load", 0], [1], r"layer 0 has 1 experts, 2 layers have 6"),
        (["snapshots", 1, "physical_to_logical_map", 2], [0, 0, 0, 1, 1, 1], r"physical_to_logical_map\[2\] names 2 experts"),
        (["snapshots", 1, "physical_to_logical_map"], [[0, 1, 2, 3, 0, 1]], r"has shape \(1, 6\); that of the counts, \(3, 6\)"),
        (["snapshots", 1], {"step": 3}, "no key 'window_expert_load'"),
        (["num_logical_experts"], 5, "num_logical_experts is 5; the snapshots have 4"),
        (["num_moe_layers"], "3", "num_moe_layers is '3'"),
        (["window_size"], 0, "window_size is 0"),
    ],
)
def test_snapshots_that_do_not_fit(tmp_path: Path, path: list[Any], value: Any, message: str) -> None:
    document = snapshots(tmp_path)
    holder: Any = document
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    refused(tmp_path, json.dumps(document), "vllm-snapshots", message)


def test_a_key_that_comes_twice(tmp_path: Path) -> None:
    refused(tmp_path, '{"snapshots": [], "snapshots": []}', "vllm-snapshots", "holds a key twice")
