from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eplb_gap.experiments.fuzzing.format_samples import sample_loads, write_samples
from eplb_gap.problem import InputError
from eplb_gap.problem.formats import read

RANK0, RANK1 = "expert_distribution_recorder_1719912345.1_0.pt", "expert_distribution_recorder_1719912345.2_1.pt"


def per_pass(tmp_path: Path) -> Path:
    return write_samples(tmp_path / "dump", "sglang-recorder:per_pass")


def edited(path: Path, **changes: Any) -> None:
    torch.save({**torch.load(path, weights_only=True), **changes}, path)


def test_statistics_tell_model_layers_and_their_doubts(tmp_path: Path) -> None:
    found = read(write_samples(tmp_path / "dump", "sglang-recorder")).provenance
    assert found["layer_ids"] == [1, 2, 3]
    assert found["num_model_layers"] == 4
    assert found["dropped_layers"] == [0]
    assert found["dropped_steps"] == 2
    assert "rotated" in found["order"]
    assert "stat_approx" in found["mode"]


def test_passes_sum_ranks_and_replicas(tmp_path: Path) -> None:
    found = read(per_pass(tmp_path)).provenance
    assert (found["ranks"], found["forward_passes"], found["layer_ids"]) == (2, [10, 13], [1, 2, 3])


def test_records_of_one_pass_add_up(tmp_path: Path) -> None:
    folder = per_pass(tmp_path)
    records = torch.load(folder / RANK0, weights_only=True)["records"]
    more = {**records[0], "gatherer_key": "child", "global_physical_count": torch.ones(4, 6, dtype=torch.int32)}
    edited(folder / RANK0, records=[*records, more])
    loads = read(folder).loads
    assert np.array_equal(loads[1:, 1:], sample_loads()[1:])  # the dense layer has tokens now
    assert (loads[0, 1:] > sample_loads()[0]).all()


def test_two_dumps_are_told_apart_by_the_order_of_their_times(tmp_path: Path) -> None:
    folder = per_pass(tmp_path)
    for shift, time in ((0, "99.5"), (10, "1719912399.5")):  # the first overlaps, and would come first
        for rank, name in enumerate((RANK0, RANK1)):
            content = torch.load(folder / name, weights_only=True)
            records = [
                {
                    **record,
                    "forward_pass_id": record["forward_pass_id"] + shift,
                    "global_physical_count": record["global_physical_count"] + 1,
                }
                for record in content["records"][:2]
            ]
            torch.save({**content, "records": records}, folder / f"expert_distribution_recorder_{time}_{rank}.pt")
    with pytest.raises(InputError, match=r"_99\.5_0\.pt holds forward passes 10 to 11 and .*345\.1_0\.pt 10 to 13"):
        read(folder)
    for rank in range(2):
        (folder / f"expert_distribution_recorder_99.5_{rank}.pt").unlink()
    early, late = read(folder / RANK1), read(folder / "expert_distribution_recorder_1719912399.5_0.pt")
    assert (len(early.loads), len(late.loads)) == (4, 2)
    whole = read(folder)  # the dense layer has load in one of the dumps alone, and is kept for both
    assert whole.loads[:4, 1:].tolist() == early.loads.tolist()
    assert whole.loads[4:].tolist() == late.loads.tolist()
    assert (whole.provenance["forward_passes"], whole.provenance["joined_by"]) == ([10, 21], "times in their names")
    again = read([*reversed(sorted(folder.iterdir()))])  # as the shell names all files of all ranks
    assert again.loads.tolist() == whole.loads.tolist()


def test_a_rank_without_file(tmp_path: Path) -> None:
    folder = per_pass(tmp_path)
    (folder / RANK0).unlink()
    with pytest.raises(InputError, match="no file of rank 0 but one of rank 1"):
        read(folder)


def test_a_rank_without_a_pass(tmp_path: Path) -> None:
    folder = per_pass(tmp_path)
    edited(folder / RANK1, records=torch.load(folder / RANK1, weights_only=True)["records"][:-1])
    with pytest.raises(InputError, match=r"_1\.pt does not have forward pass 13"):
        read(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"records": []}, "records is a list; a list that is not empty"),
        ({"records": [3]}, r"records\[0\] is a int; a dict"),
        ({"records": [{"rank": 1}]}, r"records\[0\] has no key 'forward_pass_id'"),
        ({"last_physical_to_logical_map": torch.zeros(4, 6, dtype=torch.int64)}, "not that of rank 0"),
        ({"last_physical_to_logical_map": torch.zeros(6)}, r"has shape \(6,\); 2 non-empty axes"),
    ],
)
def test_a_rank_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = per_pass(tmp_path)
    edited(folder / RANK1, **changes)
    with pytest.raises(InputError, match=message):
        read(folder)


def test_a_map_that_misses_an_expert(tmp_path: Path) -> None:
    folder = per_pass(tmp_path)
    for name in (RANK0, RANK1):
        edited(folder / name, last_physical_to_logical_map=torch.tensor([[0, 1, 2, 3, 0, 1]] * 3 + [[0, 1, 2, 2, 0, 1]]))
    with pytest.raises(InputError, match=r"physical_to_logical_map\[3\] names 3 experts; each of 0 to 3"):
        read(folder)


def test_counts_of_all_ranks_that_exceed_int64(tmp_path: Path) -> None:
    folder = per_pass(tmp_path)
    for rank, name in enumerate((RANK0, RANK1)):
        count = torch.full((4, 6), 2**63 // 6 - 1)
        records = [{"forward_pass_id": 0, "rank": rank, "global_physical_count": count}] * 4
        edited(folder / name, records=records)
    with pytest.raises(InputError, match="exceeds int64"):
        read(folder)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(3, 4, dtype=torch.int32), r"has shape \(3, 4\); 3 non-empty axes"),
        (torch.zeros(1).expand(1 << 14, 1 << 8, 1 << 8), "at most 268435456 counts"),
        (torch.ones(1).expand(100, 10, 10), "which its storage of 4 bytes does not hold"),
        (torch.ones(2, 2, 2, dtype=torch.bfloat16), "bfloat16"),
        (torch.ones(2, 2, 2, dtype=torch.bool), "torch.bool"),
        (torch.ones(2, 2, 2).to_sparse(), "torch.sparse_coo"),
        (torch.full((2, 2, 2), 0.5), "must be integral"),
        (torch.full((2, 2, 2), torch.nan), "must be finite"),
        (-torch.ones(2, 2, 2, dtype=torch.int32), "must be non-negative"),
        ([[[1]]], "logical_count is a list; a tensor"),
    ],
)
def test_counts_that_are_none(tmp_path: Path, value: object, message: str) -> None:
    path = tmp_path / "dump.pt"
    torch.save({"rank": 0, "logical_count": value}, path)
    with pytest.raises(InputError, match=message):
        read(path)


class Planted:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit",))


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"logical_count": Planted()}, tmp_path / "dump.pt")
    with pytest.raises(InputError, match="pickled objects"):
        read(tmp_path / "dump.pt")
