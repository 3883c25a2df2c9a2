from __future__ import annotations

import pytest

from eplb_gap.experiments.fuzzing import every_format
from eplb_gap.experiments.fuzzing.format_samples import SAMPLES
from eplb_gap.problem.formats import LOAD_FORMATS, MAP_FORMATS
from eplb_gap.problem.formats.maps.maps import WRITTEN


def test_every_format_has_a_sample():
    assert {sample.partition(":")[0] for sample in SAMPLES} == set(LOAD_FORMATS)
    assert set(WRITTEN) == set(MAP_FORMATS) - {"certificate"}


@pytest.mark.parametrize("sample", SAMPLES)
def test_loads_are_read_evaluated_and_explained_and_a_map_comes_back_from_every_format(sample, tmp_path):
    found = every_format.passage(sample, tmp_path)
    assert found.maps == list(WRITTEN)
    assert found.windows >= 2
    assert 0 < found.balancedness <= 1
    assert float(found.excess) == pytest.approx(100 * (1 / found.balancedness - 1), abs=0.01)


def test_a_map_that_does_not_come_back_ends_the_script_with_its_name(monkeypatch, capsys):
    monkeypatch.setattr(every_format, "SAMPLES", {"npy": SAMPLES["npy"]})
    monkeypatch.setattr(every_format, "_survives", lambda name, *rest: name != "omni")
    with pytest.raises(SystemExit, match="npy: omni"):
        every_format.main()
    assert "6 of 7" in capsys.readouterr().out
