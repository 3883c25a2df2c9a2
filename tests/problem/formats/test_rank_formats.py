from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eplb_gap.experiments.fuzzing.format_samples import sample_loads, write_samples
from eplb_gap.problem import InputError
from eplb_gap.problem.formats import read

LOADS = sample_loads()
STEP3_RANK0 = "activation_counts_recordstep_3_rank_0.txt"
CSV0 = "topk_ids_count_20250527_093605_decode_step0to99.csv"


def sample(tmp_path: Path, name: str) -> Path:
    return write_samples(tmp_path / "sample", name)


def test_tensorrt_llm_numbers_layers_as_the_model(tmp_path: Path) -> None:
    found = read(sample(tmp_path, "tensorrt-llm")).provenance
    assert (found["layer_ids"], found["num_model_layers"], found["iterations"]) == ([1, 2, 3], None, [100, 103])


def test_tensorrt_llm_ignores_files_of_other_kinds(tmp_path: Path) -> None:
    folder = sample(tmp_path, "tensorrt-llm")
    for name in ("cooccurrence_rank0", "token_selected_experts_rank1", "rank7_raw"):
        (folder / f"{name}.safetensors").write_bytes(b"something else")
    assert np.array_equal(read(folder).loads, LOADS)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("100_1", None, "has no key '100_1'"),
        ("104_1", np.ones(4, dtype=np.int64), "has no key '104_2'|has a key '104_1'"),
        ("100_1", np.ones(5, dtype=np.int64), r"is I64 of shape \(5,\); integers of shape \(4,\)"),
        ("100_1", np.ones(4), "is F64 of shape"),
        ("100_1", -np.ones(4, dtype=np.int64), "must be non-negative"),
        ("100_01", np.ones(4, dtype=np.int64), "for one step and layer"),
        ("layer", np.ones(4, dtype=np.int64), "has a key 'layer'; keys are step_layer"),
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_tensorrt_llm_counts_that_do_not_fit(tmp_path: Path, rank: int, key: str, value: Any, message: str) -> None:
    folder = sample(tmp_path, "tensorrt-llm")
    tensors = load_file(folder / f"rank{rank}.safetensors")
    tensors[key] = value
    save_file({name: array for name, array in tensors.items() if array is not None}, folder / f"rank{rank}.safetensors")
    with pytest.raises(InputError, match=message):
        read(folder)


@pytest.mark.parametrize(
    "meta", [[], {}, {"num_experts": "4"}, {"num_experts": 0}, {"num_experts": True}, {"num_experts": 10**12}]
)
def test_tensorrt_llm_without_number_of_experts(tmp_path: Path, meta: object) -> None:
    folder = sample(tmp_path, "tensorrt-llm")
    (folder / "meta_info.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match=r"meta_info\.json: num_experts is"):
        read(folder)


def test_tensorrt_llm_without_meta_or_rank(tmp_path: Path) -> None:
    folder = sample(tmp_path, "tensorrt-llm")
    (folder / "rank0.safetensors").unlink()
    with pytest.raises(InputError, match="no file of rank 0"):
        read(folder)
    (folder / "meta_info.json").unlink()
    with pytest.raises(InputError, match=r"meta_info\.json does not exist"):
        read(folder)


def test_omni_csv_is_one_window_a_file_in_units_of_128(tmp_path: Path) -> None:
    folder = sample(tmp_path, "omni-csv")
    found = read(folder / CSV0)
    assert np.array_equal(found.loads, LOADS[:1])
    assert "128" in found.provenance["counts"]
    assert read(folder).provenance["recorded_steps"] == [0, 399]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",ep_0,ep_1", ",ep_1,ep_0", r"the header ,ep_0,ep_1,\.\.\. is needed"),
        ("layer_1,", "layer_2,", "line 3 begins with 'layer_2'; 'layer_1' is needed"),
        ("layer_1,", "layer_1,5,", "line 3 has 5 counts; the header has 4"),
        ("layer_1,", "layer_1,-", "counts from 0 on"),
        ("layer_1,", "layer_1,1.5", "counts from 0 on"),
        ("layer_1,", "layer_1," + "9" * 30, "counts from 0 on"),
    ],
)
def test_omni_csv_that_is_none(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = sample(tmp_path, "omni-csv") / CSV0
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message):
        read(file, "omni-csv")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("topk_ids_count_x_decode_step50to60.csv", "begins at step 50; the one before it ends at step 99"),
        ("topk_ids_count_x_prefill_step500to600.csv", r"2 modes \['decode', 'prefill'\]"),
        ("topk_ids_count_x_decode.csv", "has no steps in its name"),
    ],
)
def test_omni_csv_files_that_are_no_sequence(tmp_path: Path, name: str, message: str) -> None:
    folder = sample(tmp_path, "omni-csv")
    (folder / name).write_bytes((folder / CSV0).read_bytes())
    with pytest.raises(InputError, match=message):
        read(folder)


def test_omni_activations_of_rank_0_alone_hold_all_positions(tmp_path: Path) -> None:
    for index, step in enumerate(LOADS):
        text = "".join("\t".join(map(str, row)) + "\t\n" for row in step.tolist())
        (tmp_path / f"activation_counts_recordstep_{index * 5}_rank_0.txt").write_text(text)
    trace = read(tmp_path)
    assert np.array_equal(trace.loads, LOADS)
    assert trace.provenance["recorded_steps"] == [0, 15]
    for index in range(4):
        copy = (tmp_path / f"activation_counts_recordstep_{index * 5}_rank_0.txt").read_text()
        (tmp_path / f"activation_counts_recordstep_{index * 5}_rank_1.txt").write_text(copy)
    with pytest.raises(InputError, match="the files of all ranks are the same"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "record step 3 has no file of rank 0"),
        (b"1\t2\t\n1\t2\t\n", "record step 3: rank 1 has"),
        (b"1\t2\t\n1\t2\t3\t\n1\t2\t\n", "line 2 has 3 counts; the first line has 2"),
        (b"1\tx\t\n", "holds 'x'; tab-separated counts"),
        (b"1\t\t2\n", "holds ''"),
        (b"1\t-2\t\n1\t2\t\n1\t2\t\n", "must be non-negative"),
        (b"\xff", "no UTF-8"),
    ],
)
def test_omni_activations_that_do_not_fit(tmp_path: Path, content: bytes | None, message: str) -> None:
    folder = sample(tmp_path, "omni-activations")
    (folder / STEP3_RANK0).unlink()
    if content is not None:
        (folder / STEP3_RANK0).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(folder)


def megatron(folder: Path, rank: int, **changes: Any) -> None:
    path = folder / f"mcore_ep_loads_rank{rank}_capture.npz"
    with np.load(path) as held:
        entries = {**held, **changes}
    np.savez(path, **{name: value for name, value in entries.items() if value is not None})


def test_megatron_keeps_its_layer_numbers(tmp_path: Path) -> None:
    found = read(sample(tmp_path, "megatron")).provenance
    assert (found["layer_ids"], found["ranks"]) == ([1, 2, 3], 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dump_version": np.asarray("v2")}, "dump_version is 'v2'; 'mcore_ep_load_dump_v1'"),
        ({"loads": None}, "has no key 'loads'"),
        ({"loads": np.ones((3, 4, 5), dtype=np.int32)}, r"has shape \(3, 4, 5\); \(3, 4, 4\)"),
        ({"loads": np.ones((3, 3, 4), dtype=np.int32)}, r"forward_counts\[0\] is 4; loads has 3 forwards"),
        ({"forward_counts": np.array([4, 4, 3])}, r"forward_counts\[2\] is 3; loads has 4 forwards"),
        ({"layer_numbers": np.array([1, 3, 2])}, "ascending numbers"),
        ({"layer_numbers": np.array([1, 2, 4])}, "layer_numbers is not that of"),
        ({"ep_group_ranks": np.array([4, 5])}, "ep_group_ranks is not that of"),
        ({"ep_rank": np.int32(0)}, "rank 0 twice"),
        ({"ep_rank": np.int32(2)}, "ep_rank 2 and ep_size 2"),
        ({"ep_size": np.array([2, 2])}, "one integer is needed"),
        ({"loads": np.array(["a"])}, "integers are needed|non-empty axes"),
    ],
)
def test_megatron_dumps_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = sample(tmp_path, "megatron")
    megatron(folder, 1, **changes)
    with pytest.raises(InputError, match=message):
        read(folder)


def test_megatron_without_a_rank(tmp_path: Path) -> None:
    folder = sample(tmp_path, "megatron")
    (folder / "mcore_ep_loads_rank1_capture.npz").unlink()
    with pytest.raises(InputError, match="dumps of 1 ranks; all 2 of the group"):
        read(folder)
