from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eplb_gap.problem import InputError, LoadTrace
from eplb_gap.problem.formats import read
from eplb_gap.problem.formats.loads.one_rank import one_rank_notice

ROOT = Path(__file__).resolve().parents[3]
RANDOM = np.random.default_rng(3)


def of_one_rank(experts: int, size: int, rank: int, layers: int = 3, windows: int = 4) -> np.ndarray:
    loads = np.zeros((windows, layers, experts), dtype=np.int64)
    loads[:, :, rank * size : (rank + 1) * size] = RANDOM.integers(0, 50, (windows, layers, size)) + (np.arange(size) > 0)
    return loads


@pytest.mark.parametrize(("experts", "size", "rank"), [(32, 4, 0), (32, 4, 5), (32, 16, 1), (256, 8, 31), (64, 2, 3)])
def test_the_share_of_one_rank_is_noticed_with_its_numbers(tmp_path: Path, experts: int, size: int, rank: int) -> None:
    loads = of_one_rank(experts, size, rank)
    np.save(tmp_path / "loads.npy", loads)
    trace = read(tmp_path / "loads.npy")
    assert np.array_equal(trace.loads, loads)
    assert trace.provenance["notices"] == [
        f"looks like the share of one rank of {experts // size}: of {experts} experts only {rank * size} to "
        f"{rank * size + size - 1} have load, the other {experts - size} none in any window of any of the 3 layers; the loads of "
        "all ranks are needed"
    ]
    trace.save(tmp_path / "trace.npz")
    assert read(tmp_path / "trace.npz").provenance["notices"] == trace.provenance["notices"]


def hot(experts: int, *cells: tuple[int, int], layers: int = 3) -> np.ndarray:
    loads = np.zeros((2, layers, experts), dtype=np.int64)
    for layer, expert in cells:
        loads[:, layer, expert] = 9
    return loads


@pytest.mark.parametrize(
    "loads",
    [
        hot(32, (0, 5), (1, 5), (2, 5)),
        hot(32, (0, 4), (1, 5), (2, 6)),
        hot(32, (1, 4)),
        hot(32, (0, 3), (0, 4), (1, 3), (1, 4)),
        hot(4, (0, 0), (0, 1), (1, 0), (1, 1)),
        of_one_rank(32, 4, 1) + hot(32, (0, 20), layers=3).repeat(2, axis=0),
        of_one_rank(32, 4, 1)[:, :, RANDOM.permutation(32)],
        of_one_rank(32, 32, 0),
        np.concatenate([of_one_rank(32, 4, 1), of_one_rank(32, 4, 6)]),
    ],
    ids=["one-hot", "one-hot-each", "one-layer", "across-blocks", "few", "one-outside", "scattered", "all", "two-ranks"],
)
def test_hot_experts_and_idle_layers_raise_no_alarm(loads: np.ndarray) -> None:
    assert one_rank_notice(loads) is None


@pytest.mark.parametrize("path", sorted((ROOT / "results" / "traces").glob("*.npz")), ids=lambda path: path.stem)
def test_the_shipped_traces_raise_no_alarm(path: Path) -> None:
    loads = read(path).loads
    assert one_rank_notice(loads) is None
    assert one_rank_notice(loads[-1:]) is None
    part = loads.copy()
    part[:, :, loads.shape[2] // 4 :] = 0
    assert one_rank_notice(part) is not None


def test_shares_that_are_joined_as_if_one_followed_the_other(tmp_path: Path) -> None:
    paths = [tmp_path / f"rank_{rank}.npy" for rank in range(4)]
    for rank, path in enumerate(paths):
        np.save(path, of_one_rank(16, 4, rank))
    (said,) = read(paths).provenance["notices"]
    assert said.startswith("rank_0.npy, one of 4 such of 4 that follow one another in time, looks like the share of one rank of ")
    np.save(paths[0], of_one_rank(16, 16, 0))
    np.save(paths[2], of_one_rank(16, 16, 0))
    assert read(paths).provenance["notices"][0].startswith("rank_1.npy, one of 2 such of 4 ")
    np.save(paths[1], of_one_rank(16, 4, 1))
    np.save(paths[2], of_one_rank(16, 4, 1))
    (said,) = read(paths[1:3]).provenance["notices"]
    assert said.startswith("looks like the share of one rank of 4:")


def test_notices_of_an_untrusted_trace_are_lines_that_can_be_printed(tmp_path: Path) -> None:
    for notices in ("x", ["\x1b[2J"], ["x" * 2000], [1], ["x"] * 200):
        LoadTrace([[[1, 2]]], {"notices": notices}).save(tmp_path / "trace.npz")
        with pytest.raises(InputError, match="notices is"):
            read(tmp_path / "trace.npz")
