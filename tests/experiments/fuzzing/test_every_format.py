from __future__ import annotations

import numpy as np
import pytest

from eplb_gap import heuristics
from eplb_gap.experiments.fuzzing import every_format
from eplb_gap.experiments.fuzzing.format_samples import ONE_STEP, READ_ONLY_MAPS, SAMPLES, SLOW, sample_expected
from eplb_gap.problem import Deployment, Placement, metrics
from eplb_gap.problem.formats import LOAD_FORMATS, MAP_FORMATS, read_map
from eplb_gap.problem.formats.maps.maps import WRITTEN
from eplb_gap.problem.formats.routing.reading import FORMATS as ROUTING_FORMATS


def test_every_format_has_a_sample():
    assert {sample.partition(":")[0] for sample in SAMPLES} == set(LOAD_FORMATS)
    assert set(WRITTEN) == set(MAP_FORMATS) - set(READ_ONLY_MAPS)
    assert {*LOAD_FORMATS, *ROUTING_FORMATS} >= SLOW
    assert set(MAP_FORMATS) >= set(READ_ONLY_MAPS)


def served(loads):
    """Return the balancedness of the map that is planned on the last window but one, in the last."""
    deployment = Deployment(4, 6, 3, duplicates="forbidden")
    return metrics.balancedness_gpu(heuristics.rebalance(loads[-2], deployment), loads[-1], 3)


@pytest.mark.parametrize("sample", SAMPLES)
def test_loads_are_read_evaluated_and_explained_and_a_map_comes_back_from_every_format(sample, tmp_path):
    loads = sample_expected(sample)
    if sample in ONE_STEP:
        loads = np.stack([loads[0], loads[0][:, ::-1]])
    found = every_format.passage(sample, tmp_path)
    assert found.maps == list(WRITTEN)
    assert (found.windows, found.layers) == loads.shape[:2]
    assert found.balancedness == pytest.approx(served(loads), abs=1e-12)
    assert float(found.excess) == pytest.approx(100 * (1 / found.balancedness - 1), abs=0.01)


def test_a_map_that_does_not_come_back_ends_the_script_with_its_name(monkeypatch, capsys):
    def upside_down(path, deployment, format, layer_ids):
        found = read_map(path, deployment, format, layer_ids)
        return Placement(found.phy2log[::-1], found.num_experts) if format == "omni" else found

    monkeypatch.setattr(every_format, "SAMPLES", {"npy": SAMPLES["npy"]})
    monkeypatch.setattr(every_format.formats, "read_map", upside_down)
    with pytest.raises(SystemExit, match=r"npy: omni$"):
        every_format.main()
    assert f"{len(WRITTEN) - 1} of {len(WRITTEN)}" in capsys.readouterr().out
