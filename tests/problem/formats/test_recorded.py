from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eplb_gap.experiments.fuzzing.format_samples import SAMPLES, sample_expected, sample_loads, write_samples
from eplb_gap.problem import InputError, LoadTrace
from eplb_gap.problem.formats import LOAD_FORMATS, read
from eplb_gap.problem.formats.loads.recorded import FORMATS

LOADS = sample_loads()
FOLDERS = [name for name in SAMPLES if FORMATS[name.partition(":")[0]].folder]


def array_file(folder: Path, loads: np.ndarray) -> Path:
    np.save(folder / "loads.npy", loads)
    return folder / "loads.npy"


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("told", [False, True])
def test_the_sample_of_every_format_is_recognised_and_read(tmp_path: Path, name: str, told: bool) -> None:
    path = write_samples(tmp_path / "sample", name)
    format = name.partition(":")[0]
    trace = read(path, format if told else None)
    assert trace.loads.dtype == np.int64
    assert np.array_equal(trace.loads, sample_expected(name))
    if format != "eplb-gap":
        found = trace.provenance
        assert found["format"] == format
        assert found["file"] == path.name
        assert len(found["layer_ids"]) == trace.loads.shape[1]
        assert found["left_out_steps"] == 0
        json.dumps(found)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_of_a_set_stands_for_the_set(tmp_path: Path, name: str) -> None:
    write_samples(tmp_path / "sample", name)
    for file in sorted((tmp_path / "sample").iterdir()):
        if "raw" not in file.name and name not in ("omni-csv", "eplb-gap-record:calls"):  # whose files are steps
            assert np.array_equal(read(file).loads, LOADS)


def test_dense_layers_and_empty_steps_are_left_out_and_reported(tmp_path: Path) -> None:
    loads = np.zeros((5, 4, 3), dtype=np.int64)
    loads[[1, 3, 4], 1] = 7
    loads[4, 3, 2] = 1
    trace = read(array_file(tmp_path, loads))
    assert np.array_equal(trace.loads, loads[[1, 3, 4]][:, [1, 3]])
    assert trace.provenance["layer_ids"] == [1, 3]
    assert trace.provenance["dropped_layers"] == [0, 2]
    assert trace.provenance["dropped_steps"] == 2


def test_loads_that_are_all_zero_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="all zero"):
        read(array_file(tmp_path, np.zeros((2, 2, 2), dtype=np.int64)))


def test_windows_sum_steps_and_leave_out_the_oldest(tmp_path: Path) -> None:
    loads = np.arange(1, 15).reshape(7, 2, 1) * np.array([1, 2])
    trace = read(array_file(tmp_path, loads), window=3)
    assert np.array_equal(trace.loads, [loads[1:4].sum(axis=0), loads[4:7].sum(axis=0)])
    assert trace.provenance["left_out_steps"] == 1
    assert trace.provenance["window_steps"] == 3
    assert np.array_equal(read(array_file(tmp_path, loads), window=7).loads[0], loads.sum(axis=0))


@pytest.mark.parametrize("window", [0, -1, 8, True, 1.5])
def test_a_window_that_is_none_is_refused(tmp_path: Path, window: object) -> None:
    with pytest.raises(InputError, match=r"window is .*; 1 to 7 steps"):
        read(array_file(tmp_path, np.ones((7, 2, 2), dtype=np.int64)), window=window)  # type: ignore[arg-type]


def test_windows_of_recorded_windows_count_steps(tmp_path: Path) -> None:
    trace = LoadTrace(LOADS, {"window_steps": 50, "layer_ids": [3, 4, 5]})
    trace.save(tmp_path / "trace.npz")
    summed = read(tmp_path / "trace.npz", window=100)
    assert np.array_equal(summed.loads, LOADS.reshape(2, 2, *LOADS.shape[1:]).sum(axis=1))
    assert summed.provenance["window_steps"] == 100
    assert summed.provenance["layer_ids"] == [3, 4, 5]
    with pytest.raises(InputError, match="a multiple of 50"):
        read(tmp_path / "trace.npz", window=75)


@pytest.mark.parametrize(
    ("provenance", "key"),
    [
        ({"window_steps": "100"}, "window_steps"),
        ({"window_steps": 0}, "window_steps"),
        ({"layer_ids": [1, 2]}, "layer_ids"),
        ({"layer_ids": [1, 2, -3]}, "layer_ids"),
        ({"layer_ids": [3, 4, 5], "num_model_layers": 5}, "num_model_layers"),
        ({"dropped_steps": 0.5}, "dropped_steps"),
    ],
)
def test_a_trace_whose_provenance_contradicts_it_is_refused(tmp_path: Path, provenance: dict[str, object], key: str) -> None:
    LoadTrace(LOADS, provenance).save(tmp_path / "trace.npz")
    with pytest.raises(InputError, match=f"{key} is"):
        read(tmp_path / "trace.npz")


def test_a_folder_of_two_formats_is_ambiguous_unless_told(tmp_path: Path) -> None:
    write_samples(tmp_path / "both", "megatron")
    write_samples(tmp_path / "both", "omni-activations")
    with pytest.raises(InputError, match="omni-activations, megatron"):
        read(tmp_path / "both")
    assert np.array_equal(read(tmp_path / "both", "megatron").loads, LOADS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello\n", "known format; the formats are eplb-gap, sglang-recorder"),
        (b"\x00\x01,\x00", "known format; the formats are eplb-gap, sglang-recorder"),
        (b"PK\x03\x04", "broken zip"),
        (b"{}", "is JSON without keys; a key logical_count, load_history"),
        (b"[[1, 2]]", "is JSON without keys; a key logical_count, load_history"),
        (b'{"logical": [], "more": 1}', "has the keys logical, more, none of recorded loads; a key logical_count"),
        (
            b'{"moe_layer_count": 58, "layer_list": []}',
            "the keys moe_layer_count, layer_list: it is a map of experts, which --map",
        ),
        (b"layer;expert;tokens\n", "layer, expert, tokens, separated by semicolons; commas between them are needed"),
        (b"window\tlayer\texpert\ttokens\n0\t0\t0\t1\n", "window, layer, expert, tokens, separated by tabs; commas between"),
        (b"layer\tshare\n", r"layer, share, separated by tabs; separated by commas, window \(optional\), layer"),
        (b"\x80\x04\x95", "is a pickle, which is not read"),
        (b"\x08\0\0\0\0\0\0\0" + b'{"x": 1}', r"safetensors with the keys x; rank0\.safetensors beside"),
        (b"INFO EPLB step: 3 balancedness=0.7, mean=1\n", "is a log: .* holds no loads of single experts"),
    ],
)
def test_of_no_known_format_it_is_said_what_was_found_and_what_is_needed(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path / "file")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("garb.npz", r"is no zip file, which \.npz files are; a key loads, \[layers, experts\]"),
        ("garb.NPY", r"is no NPY file, which \.NPY files are; an array \[layers, experts\]"),
        ("garb.pt", r"is no zip file, which \.pt files are; what torch\.save wrote .* logical_count or records, is needed"),
        ("garb.parquet", r"is no Parquet file, which \.parquet files are; the columns window"),
        ("garb.bin", "known format; the formats are"),
    ],
)
def test_what_a_known_suffix_promises_and_the_content_does_not_hold(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(300))
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)


def test_of_other_arrays_and_folders_it_is_said_what_they_hold(tmp_path: Path) -> None:
    np.savez(tmp_path / "file.npz", counts=np.ones((2, 3, 4)), requests=np.int64(3))
    with pytest.raises(
        InputError, match=r"holds counts \[2, 3, 4\], requests \[\]; a key loads, \[layers, experts\] or \[windows"
    ):
        read(tmp_path / "file.npz")
    with pytest.raises(InputError, match=r"holds no recorded loads but file\.npz; the formats are"):
        read(tmp_path)


@pytest.mark.parametrize("path", ["missing", "", ".", "a\0b"])
def test_paths_that_hold_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"does not exist|no recorded loads|cannot be read"):
        read(path)


def test_an_unknown_format_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"format is 'deepseek'; the load formats are eplb-gap, .*megatron"):
        read(tmp_path, "deepseek")


@pytest.mark.parametrize("format", [name for name, record in FORMATS.items() if not record.folder])
def test_a_folder_for_a_format_of_files(tmp_path: Path, format: str) -> None:
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path, format)


@pytest.mark.parametrize("format", LOAD_FORMATS)
def test_a_file_of_another_format_is_refused_whatever_is_told(tmp_path: Path, format: str) -> None:
    (tmp_path / "file").write_bytes(b"neither\nthis\n")
    with pytest.raises(InputError):
        read(tmp_path / "file", format)
