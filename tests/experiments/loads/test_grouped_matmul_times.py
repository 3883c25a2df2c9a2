"""The script that measures grouped matrix multiplications: tiles are found again, and on a CPU it runs and says so."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from eplb_gap.analysis.step_time.profile import read_profile
from eplb_gap.experiments.loads.grouped_matmul_times import ROWS, fitted, main


@pytest.mark.parametrize("tile", [16, 128, 512])
def test_tiles_are_found_again_in_noise(tile: int) -> None:
    rng = np.random.default_rng(tile)
    true = [max(20e-6, 15e-6 * math.ceil(m / tile)) for m in ROWS]
    tiles = fitted(ROWS, [t * rng.uniform(0.99, 1.01) for t in true], 1e8)
    assert tiles.tile_rows == tile
    assert tiles.tile_seconds == pytest.approx(15e-6, rel=0.03)
    assert tiles.read_seconds == pytest.approx(20e-6, rel=0.03)


def test_a_cpu_is_measured_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.toml"
    small = ["--experts", "2", "--hidden", "64", "--intermediate", "32", "--rows", "1", "4", "64", "--repeats", "3"]
    assert main(["--out", str(path), *small]) == 0
    profile = read_profile(path)
    assert profile.tiles is not None and profile.tiles.weight_bytes == 3 * 64 * 32 * 2
    assert "64 rows" in path.read_text() and "64 x 32" in profile.measured_on
    assert "measured by" in profile.source
    assert main(["--out", str(path), *small]) == 2
    assert "is not there yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--hidden", "65"], "--hidden is 65"),
        (["--experts", "0"], "--experts is 0"),
        (["--rows", "1", "2", "2"], "at least three different numbers"),
        (["--out", "x.json"], "ends in .toml"),
    ],
)
def test_bad_input_is_one_line(more: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "x.toml"), *more]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_a_device_cannot_do_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("a GPU may have it")
    small = ["--kind", "fp8", "--experts", "2", "--hidden", "64", "--intermediate", "32"]
    assert main(["--out", str(tmp_path / "x.toml"), *small]) == 2
    error = capsys.readouterr().err
    assert "on cpu has no grouped fp8 product" in error and error.count("\n") == 1
