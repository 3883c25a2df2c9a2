"""Every format of recorded loads in, every format of maps out, as a user would.

``python -m eplb_gap.experiments.fuzzing.every_format`` runs it.

For each load format a small file built to its description is read, evaluated and explained; a better map, planned on the latest
window, is written in each map format, read back and compared.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eplb_gap import heuristics
from eplb_gap.analysis.evaluate import certified_bounds, evaluate_map
from eplb_gap.analysis.explain import explain_map
from eplb_gap.analysis.verdict import points
from eplb_gap.analysis.windows import Windows
from eplb_gap.experiments.fuzzing.format_samples import SAMPLES, write_samples
from eplb_gap.problem import Deployment, LoadTrace, Placement, formats, metrics
from eplb_gap.problem.formats.maps.maps import FORMATS, WRITTEN

SLOTS_PER_EXPERT, GPUS = 1.5, 3


@dataclass(frozen=True)
class Passage:
    """What one load format went through.

    Parameters
    ----------
    sample : str
    windows, layers : int
        Of the trace that was read.
    balancedness : float
        Of the planned map on the window it serves.
    excess : str
        Its excess there, in percent.
    maps : list of str
        Map formats that held the planned map and gave it back.
    """

    sample: str
    windows: int
    layers: int
    balancedness: float
    excess: str
    maps: list[str]


def passage(sample: str, folder: Path) -> Passage:
    """Take one sample through reading, evaluation, explanation, and every map format.

    Parameters
    ----------
    sample : str
        Key of :data:`eplb_gap.experiments.fuzzing.format_samples.SAMPLES`.
    folder : Path
        Where files are written.
    """
    trace = formats.read(write_samples(folder / "loads", sample))
    if len(trace.loads) == 1:  # a format that holds one window: its mirror image stands for the next recording
        trace = LoadTrace(np.concatenate([trace.loads, trace.loads[:, :, ::-1]]), trace.provenance)
    experts = trace.loads.shape[2]
    deployment = Deployment(experts, int(experts * SLOTS_PER_EXPERT), GPUS, duplicates="forbidden")
    windows = Windows.of(trace)
    planned = heuristics.rebalance(windows.planning, deployment)
    scored = evaluate_map("fast", planned, windows, deployment, certified_bounds(windows, deployment))
    result = explain_map(windows, deployment, planned, "fast", "fast")
    better = heuristics.rebalance(windows.serving, deployment)
    held = [name for name in WRITTEN if survives(name, better, trace, deployment, folder)]
    balancedness = scored.serving.balancedness_gpu
    windows, layers, _ = trace.loads.shape
    return Passage(sample, windows, layers, balancedness, points(result.excess()), held)


def survives(name: str, placed: Placement, trace: LoadTrace, deployment: Deployment, folder: Path) -> bool:
    """Write a map, read it back, and say whether every GPU holds the same experts."""
    path = folder / f"map-{name}{FORMATS[name].suffix}"
    identifiers = list(trace.provenance.get("layer_ids") or range(placed.num_layers))
    model_layers = trace.provenance.get("num_model_layers") or identifiers[-1] + 1
    formats.write_map(path, placed, deployment, name, identifiers, model_layers)
    back = formats.read_map(path, deployment, name, identifiers)
    if not isinstance(back, Placement):
        return False
    same = np.sort(back.by_gpu(deployment.num_gpus), axis=2) == np.sort(placed.by_gpu(deployment.num_gpus), axis=2)
    loads = trace.window(-1)
    return bool(same.all()) and (metrics.balancedness_gpu(back, loads, GPUS) == metrics.balancedness_gpu(placed, loads, GPUS))


def main() -> None:
    """Print one line per sample; end with an error if a map does not come back."""
    failed = []
    print(f"{'sample':<28} windows layers  served  excess  map formats written and read back")
    with tempfile.TemporaryDirectory() as folder:
        for sample in SAMPLES:
            found = passage(sample, Path(folder) / sample.replace(":", "-"))
            print(
                f"{sample:<28} {found.windows:>7} {found.layers:>6}  {found.balancedness:.4f}  {found.excess:>5} %  "
                f"{len(found.maps)} of {len(WRITTEN)}"
            )
            failed += [f"{sample}: {name}" for name in WRITTEN if name not in found.maps]
    if failed:
        sys.exit(f"maps that did not come back: {', '.join(failed)}")


if __name__ == "__main__":
    main()
