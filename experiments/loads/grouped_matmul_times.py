"""Measure how long torch's grouped matrix multiplication takes for an expert's rows, and write it as a step-time profile.

``python -m eplb_gap.experiments.loads.grouped_matmul_times --out FILE.toml`` times the two multiplications of some experts, all
with the same number of rows, for 1 to 4096 rows: warm, the median of many runs, by CUDA events. The profile names the card; the
times themselves stand in front of it. Without a GPU it measures the CPU, says so, and tells nothing about one.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eplb_gap.analysis.step_time.profile import Profile, Tiles, write_profile
from eplb_gap.problem.atomic import check_writable
from eplb_gap.problem.errors import InputError, reason

ROWS = tuple(
    sorted({1, *(2**power for power in range(1, 13)), *(48, 96, 127, 129, 192, 255, 257, 384, 511, 513, 768, 1536, 3072)})
)
"""Powers of two, and what lies beside and between the usual tiles."""
TILES = tuple(2**power for power in range(3, 10))
"""Rows of a tile that a profile may have."""
KINDS = {"bf16": 2, "fp8": 1}
"""Bytes of a weight."""
WARM_UP = 5
IN_A_ROW = 10
"""Products between two events of a GPU, so that it does not wait for their launch."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="profile to write, .toml; a file that is there is kept")
    parser.add_argument("--kind", choices=KINDS, default="bf16")
    parser.add_argument("--experts", type=int, default=8, help="experts of a GPU; together they should not fit its cache")
    parser.add_argument("--hidden", type=int, default=7168)
    parser.add_argument("--intermediate", type=int, default=2048)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="rows of every expert")
    parser.add_argument("--repeats", type=int, default=50)
    given = parser.parse_args(arguments)
    try:
        if given.out.suffix != ".toml" or given.out.exists():
            raise InputError(f"--out is {given.out}; a name that ends in .toml and is not there yet is needed")
        check_writable(given.out)
        for name in ("experts", "hidden", "intermediate", "repeats"):
            if getattr(given, name) < 1 or (name in ("hidden", "intermediate") and getattr(given, name) % 16):
                raise InputError(f"--{name} is {getattr(given, name)}; at least 1, and of sizes a multiple of 16, is needed")
        rows = sorted(set(given.rows))
        if rows[0] < 1 or len(rows) < 3:
            raise InputError(f"--rows are {rows}; at least three different numbers of at least 1 are needed")
        device, card = _device()
        seconds = measured(rows, given.kind, given.experts, given.hidden, given.intermediate, device, given.repeats)
        weight_bytes = 3 * given.hidden * given.intermediate * KINDS[given.kind]
        tiles = fitted(rows, seconds, weight_bytes)
    except InputError as error:
        print(f"grouped_matmul_times: {error}", file=sys.stderr)
        return 2
    off = max(abs(_modelled(tiles, m) / t - 1.0) for m, t in zip(rows, seconds, strict=True))
    lines = [
        f"{m:5d} rows {1e6 * t:10.2f} us, profile {1e6 * _modelled(tiles, m):10.2f}" for m, t in zip(rows, seconds, strict=True)
    ]
    said = [f"An expert's time on {card}; the profile is off by at most {100 * off:.0f} %.", *lines]
    print(*said, sep="\n")
    profile = Profile(
        name=given.out.stem,
        source="measured by python -m eplb_gap.experiments.loads.grouped_matmul_times",
        measured_on=f"{card}, {given.kind}, {given.experts} experts of {given.hidden} x {given.intermediate}, "
        f"{datetime.now(UTC):%Y-%m-%d}",
        tiles=tiles,
    )
    write_profile(given.out, profile, "\n".join(said))
    print(f"written: {given.out}")
    return 0


def measured(
    rows: Sequence[int], kind: str, experts: int, hidden: int, intermediate: int, device: str, repeats: int
) -> list[float]:
    """Return the seconds of one expert for every number of rows, the median of all runs, float [rows].

    Raises
    ------
    InputError
        If this torch or this device cannot multiply so.
    """
    import torch

    times = []
    for m in rows:
        generator = torch.Generator(device).manual_seed(m)
        both = [
            _product(torch, kind, experts, m, inner, outer, device, generator)
            for inner, outer in ((hidden, 2 * intermediate), (intermediate, hidden))
        ]
        try:
            for _ in range(WARM_UP):
                for product in both:
                    product()
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            raise InputError(f"torch {torch.__version__} on {device} has no grouped {kind} product ({reason(error)})") from None
        runs = [sum(_once(torch, product, device) for product in both) for _ in range(repeats)]
        times.append(statistics.median(runs) / experts)
    return times


def fitted(rows: Sequence[int], seconds: Sequence[float], weight_bytes: float) -> Tiles:
    """Return the tiles that are off by the smallest factors, squared logarithms summed, of all sizes of :data:`TILES`.

    The read of the weights takes what the fewest rows take; the time of a tile is what one of the measured times says of it.

    Parameters
    ----------
    rows : sequence of int
        Ascending.
    seconds : sequence of float
        Of one expert.
    weight_bytes : float
        Of one expert.
    """
    best: tuple[float, Tiles] | None = None
    bandwidth = weight_bytes / seconds[0]
    for tile in TILES:
        for m, t in zip(rows, seconds, strict=True):
            tiles = Tiles(weight_bytes, t / math.ceil(m / tile), tile, bandwidth)
            off = sum(math.log(_modelled(tiles, n) / s) ** 2 for n, s in zip(rows, seconds, strict=True))
            if best is None or off < best[0]:
                best = off, tiles
    assert best is not None
    return best[1]


def _modelled(tiles: Tiles, rows: int) -> float:
    return max(tiles.read_seconds, tiles.tile_seconds * math.ceil(rows / tiles.tile_rows))


def _product(
    torch: Any, kind: str, experts: int, rows: int, inner: int, outer: int, device: str, generator: Any
) -> Callable[[], Any]:
    """Return the multiplication of ``rows`` rows with each expert's matrix [inner, outer], ready to be run."""
    ends = torch.arange(1, experts + 1, device=device, dtype=torch.int32) * rows
    # Weights are stored [outer, inner] as models have them.
    left = torch.randn(experts * rows, inner, device=device, generator=generator).to(torch.bfloat16)
    right = torch.randn(experts, outer, inner, device=device, generator=generator).to(torch.bfloat16)
    functional = torch.nn.functional
    if kind == "bf16":
        return lambda: functional.grouped_mm(left, right.transpose(1, 2), offs=ends)
    left, right = left.to(torch.float8_e4m3fn), right.to(torch.float8_e4m3fn)
    scales = torch.ones(experts * rows, device=device), torch.ones(experts, outer, device=device)

    def scaled() -> Any:
        by_row = functional.ScalingType.RowWise
        return functional.scaled_grouped_mm(
            left, right.transpose(1, 2), scales[0], by_row, scales[1], by_row, offs=ends, use_fast_accum=True
        )

    return scaled


def _once(torch: Any, product: Callable[[], Any], device: str) -> float:
    if device == "cpu":
        start = time.perf_counter()
        product()
        return time.perf_counter() - start
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    for _ in range(IN_A_ROW):
        product()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after)) / 1000 / IN_A_ROW


def _device() -> tuple[str, str]:
    """Return the device to measure, and what a profile calls it."""
    import torch

    if torch.cuda.is_available():
        return "cuda", f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return "cpu", f"a CPU and no GPU ({platform.machine()}), torch {torch.__version__}"


if __name__ == "__main__":
    raise SystemExit(main())
