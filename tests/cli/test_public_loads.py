"""`public-loads` knows its sources, converts originals without unpickling them, and refuses any other content."""

from __future__ import annotations

import json
import pickle
from collections import Counter

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from eplb_gap.cli.main import app
from eplb_gap.experiments.loads.public_counts import VARIABLE
from eplb_gap.experiments.loads.public_sources import DOMAINS, SOURCES, convert, read_counter_pickle
from eplb_gap.experiments.studies.jobs import JOBS
from eplb_gap.problem import InputError


def run(*arguments: str):
    return CliRunner().invoke(app, ["public-loads", *arguments])


def pickled(path, *layers):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps([Counter({np.int64(e): n for e, n in layer.items()}) for layer in layers], protocol=4))
    return path


def test_an_empty_folder_misses_every_file_and_is_told_where_they_are(tmp_path):
    done = run(str(tmp_path), "--json")
    assert done.exit_code == 0
    said = json.loads(done.stdout)["sources"]
    assert {source["state"] for source in said} == {"missing"}
    assert {len(source["sha256"]) for source in said} == {64}
    assert {"allenai/OLMoE", "AmanPriyanshu/GPT-OSS-MoE-ExpertFingerprinting"} == {source["repository"] for source in said}


def test_counters_are_read_and_nothing_is_executed(tmp_path):
    path = pickled(tmp_path / "a.pkl", {3: 70_000, 0: 5}, {1: 1})
    assert read_counter_pickle(path, 4).tolist() == [[5, 0, 0, 70_000], [0, 1, 0, 0]]
    with pytest.raises(InputError, match="expert 3 with 70000 tokens"):
        read_counter_pickle(path, 3)

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    (tmp_path / "b.pkl").write_bytes(pickle.dumps(Bomb()))
    assert read_counter_pickle(tmp_path / "b.pkl", 4).size == 0
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x04."])
def test_what_is_no_pickle_of_counters_is_an_error_or_nothing(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(content)
    try:
        assert read_counter_pickle(tmp_path / "a.pkl", 4).size == 0
    except InputError as error:
        assert "a.pkl" in str(error)


def test_other_counts_are_refused_and_nothing_is_written(tmp_path):
    for name in ("olmoe", "mistral"):
        for domain in DOMAINS:
            pickled(tmp_path / "originals" / name / "expert_counts" / f"{domain}.pkl", {0: 1}, {1: 1}, {2: 1})
    with pytest.raises(InputError, match="array of OLMoE-1B-7B hashes to"):
        convert(tmp_path / "originals", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert run(str(tmp_path / "out"), "--from", str(tmp_path / "nowhere")).exception.args[0].startswith("--from is")


def test_a_folder_with_another_content_is_named(tmp_path):
    counts = {source.key: np.ones(source.shape, int).tolist() for source in SOURCES[:2]}
    (tmp_path / "real_counts.json").write_text(json.dumps(counts))
    done = run(str(tmp_path))
    assert isinstance(done.exception, InputError)
    assert "olmoe_1b_7b_64 hashes to" in str(done.exception)


def test_a_run_refuses_a_folder_that_lacks_an_array_or_holds_another_one(tmp_path, monkeypatch):
    job = JOBS["control"]
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(InputError, match=r"olmoe_1b_7b_64 of real_counts\.json is missing; see eplb-gap public-loads"):
        job.run(tmp_path / "runs", 1, Console())
    counts = {source.key: np.ones(source.shape, int).tolist() for source in SOURCES[:2]}
    (tmp_path / "real_counts.json").write_text(json.dumps(counts))
    with pytest.raises(InputError, match="olmoe_1b_7b_64 hashes to"):
        job.run(tmp_path / "runs", 1, Console())
    assert not (tmp_path / "runs").exists()


def test_an_array_of_another_shape_is_refused_whatever_it_hashes_to(tmp_path):
    source = SOURCES[0]
    with pytest.raises(InputError, match=r"has shape \(960,\) of int64; integers of shape \(5, 3, 64\) are needed"):
        source.check(np.zeros(960, int), "it")
    with pytest.raises(InputError, match="of float64"):
        source.check(np.zeros(source.shape), "it")
