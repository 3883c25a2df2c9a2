"""A synthetic load file in the format of the published searches, of the size of the recorded one: an importer's full-size test.

``python -m eplb_gap.experiments.fuzzing.adrs_file OUT [--steps N] [--seed S]`` writes ``{"load_history": [{"logical_expert_load":
[[int, ...], ...]}, ...]}``: a record per step, in it a list per layer. The loads are the calibrated synthetic windows
(:mod:`eplb_gap.experiments.loads.synthetic`), each split at random over its 100 steps: the steps of a window sum to it exactly.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eplb_gap.experiments.loads.synthetic import EXPERTS, LAYERS, calibrated_trace
from eplb_gap.problem.atomic import replacing
from eplb_gap.problem.errors import InputError

STEPS, WINDOW_STEPS = 1200, 100
DESCRIPTION = (
    "synthetic: expert loads of a stand-in calibrated to published statistics, not recorded from any model; "
    "seed {seed}, windows of {window_steps} steps, each split at random over its steps"
)


def write(
    path: str | os.PathLike[str],
    steps: int = STEPS,
    seed: int = 0,
    *,
    window_steps: int = WINDOW_STEPS,
    layers: int = LAYERS,
    experts: int = EXPERTS,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the file, one number a line as ``json.dump(..., indent=2)`` does; atomic, and never more than one window in memory.

    Parameters
    ----------
    path : path
    steps : int, default 1200
        Records, a multiple of ``window_steps``; the trace has 12 windows. 1200 steps of all layers and experts are about 250 MB.
    seed : int, default 0
        Seed of the trace and of its split.
    window_steps : int, default 100
        Steps that a window is split over.
    layers, experts : int
        The first of the trace's 58 layers and 256 experts to keep.
    progress : callable, optional
        ``progress(steps written, steps)`` after every window.

    Raises
    ------
    InputError
        If a number is out of its range.
    """
    trace = calibrated_trace(seed)
    for name, value, most in (("layers", layers, LAYERS), ("experts", experts, EXPERTS)):
        if not 1 <= value <= most:
            raise InputError(f"{name} is {value}; 1 to {most} is needed")
    if window_steps < 1:
        raise InputError(f"window_steps is {window_steps}; at least 1 is needed")
    most = trace.loads.shape[0] * window_steps
    if not 1 <= steps <= most or steps % window_steps:
        raise InputError(f"steps is {steps}; a multiple of {window_steps} up to {most} is needed")
    generator = np.random.default_rng([seed, 1])  # not the trace's own stream
    with replacing(path) as partial, partial.open("w", encoding="ascii") as file:
        description = DESCRIPTION.format(seed=seed, window_steps=window_steps)
        file.write(f'{{\n  "description": "{description}",\n  "load_history": [')
        for start in range(0, steps, window_steps):
            loads = trace.window(start // window_steps)[:layers, :experts]
            for offset, step in enumerate(_split(loads, window_steps, generator)):
                file.write(("," if start + offset else "") + _record(step))
            if progress is not None:
                progress(start + window_steps, steps)
        file.write("\n  ]\n}")


def _split(loads: np.ndarray, steps: int, generator: np.random.Generator) -> np.ndarray:
    """Deal every expert's tokens to the steps, each as likely as any; int64 [steps, layers, experts] that sum to ``loads``."""
    return np.moveaxis(generator.multinomial(loads, np.full(steps, 1 / steps)), -1, 0)


def _record(step: np.ndarray) -> str:
    rows = (",\n          ".join(map(str, row)) for row in step.tolist())
    body = ",".join(f"\n        [\n          {row}\n        ]" for row in rows)
    return f'\n    {{\n      "logical_expert_load": [{body}\n      ]\n    }}'


def main() -> None:
    """Write the file that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m eplb_gap.experiments.fuzzing.adrs_file", description="Write a synthetic expert-load.json."
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS, help="records; a multiple of 100 up to 1200 (about 250 MB)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        write(given.out, given.steps, given.seed, progress=lambda done, steps: print(f"{done} of {steps} steps", flush=True))
    except (InputError, OSError) as error:
        parser.error(str(error))
    print(f"{given.out}: {given.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
