"""A seconds-long version of the recording: train, serve, record, resume, repeat."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from eplb_gap.cli.recording import Traffic
from eplb_gap.cli.recording import record as record_command
from eplb_gap.experiments.loads.moe_trace.config import Phase, RecordConfig, ServeConfig, tiny_config
from eplb_gap.experiments.loads.moe_trace.corpus import read_corpus
from eplb_gap.experiments.loads.moe_trace.recorder import record, record_routing, sequences_of_steps
from eplb_gap.experiments.loads.moe_trace.rhythm import DAY, MIXES, RARE, rhythm_config, rhythm_phases
from eplb_gap.problem import InputError, LoadTrace

WORDS = {
    "alpha": "for if while return class def import lambda yield print",
    "beta": "der die das und nicht oder aber wenn dann weil",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    for name, words in WORDS.items():
        (folder / name).mkdir()
        for number in range(12):
            (folder / name / f"{number}.txt").write_text(" ".join(generator.choice(words.split(), size=300)))
    (folder / "corpus.json").write_text(json.dumps({"alpha": {"source": "made up", "licence": "public domain"}}))
    return folder


class Steps:
    def __init__(self, stop_at=None):
        self.texts, self.stop_at = [], stop_at

    def __call__(self, done, total, text):
        self.texts.append(text)
        if self.stop_at is not None and len(self.texts) == self.stop_at:
            raise KeyboardInterrupt


CONFIG = tiny_config(tuple(WORDS))


@pytest.fixture(scope="module")
def recorded(corpus, tmp_path_factory):
    checkpoint = tmp_path_factory.mktemp("model") / "moe.pt"
    return record(corpus, checkpoint, CONFIG, Steps()), checkpoint


def test_routing_sums_to_the_loads_of_the_steps_it_was_kept_of(recorded, corpus):
    trace, checkpoint = recorded
    routing = record_routing(corpus, checkpoint, CONFIG, 2, Steps())
    assert (routing.load_trace().loads == trace.loads[::2]).all()
    assert np.unique(routing.step).tolist() == list(range(0, len(trace.loads), 2))
    groups = routing.experts // (CONFIG.model.experts // CONFIG.model.groups)
    assert max(len(set(row.tolist())) for row in groups.reshape(-1, routing.topk)) <= CONFIG.model.top_groups
    with pytest.raises(InputError, match="every is 0"):
        record_routing(corpus, checkpoint, CONFIG, 0, Steps())


def test_every_row_holds_every_token_once_per_chosen_expert(recorded):
    trace, _ = recorded
    assert trace.loads.shape == (16, 2, 32)
    assert (trace.loads.sum(axis=2) == 4 * 32 * 4).all()
    assert np.unique(trace.loads[0, 0]).size > 3


def test_at_most_the_top_groups_serve_a_token(recorded):
    # 4 experts out of 2 of the 4 groups: with one token per step, at most two groups would carry load; over a batch, all may.
    trace, _ = recorded
    assert (trace.loads.max(axis=2) <= 4 * 32).all()


def test_provenance_says_what_it_is(recorded):
    provenance = recorded[0].provenance
    assert provenance["kind"] == "recorded from a small model trained for this purpose"
    assert provenance["corpus"][0]["licence"] == "public domain"
    assert provenance["corpus"][1]["licence"] == "not stated"
    assert set(provenance["training"]["held_out_loss"]) == set(WORDS)
    assert len(provenance["checkpoint_sha256"]) == 64
    json.dumps(provenance)


def test_recording_again_from_the_checkpoint_is_identical(recorded, corpus, tmp_path):
    trace, checkpoint = recorded
    again = record(corpus, checkpoint, CONFIG, Steps())
    assert (again.loads == trace.loads).all()
    again.save(tmp_path / "t.npz")
    assert (LoadTrace.load(tmp_path / "t.npz").windowed(4).loads.sum(axis=0) == trace.loads.sum(axis=0)).all()


def test_a_rhythm_is_recorded_with_batches_of_every_size_it_says(recorded, corpus):
    mixes = {"code": {"alpha": 0.9, "beta": 0.1}, "books": {"alpha": 0.1, "beta": 0.9}}
    phases = tuple(replace(phase, steps=6) for phase in rhythm_phases(mixes=mixes, sequences=4)[:3])
    serve = replace(CONFIG.serve, phases=phases, stream=4)
    trace = record(corpus, recorded[1], replace(CONFIG, serve=serve), Steps())
    provenance = trace.provenance
    assert provenance["window_steps"] == 1
    assert [phase["name"] for phase in provenance["phases"]] == [phase.name for phase in serve.phases]
    assert len(provenance["tokens_per_step"]) == 18 and len(set(provenance["tokens_per_step"])) > 2
    assert (trace.loads.sum(axis=2) == 4 * np.array(provenance["tokens_per_step"])[:, None]).all()
    json.dumps(provenance)
    assert recorded[0].provenance["tokens_per_step"] == 4 * 32  # of traffic without a rhythm


def test_phases_of_a_rhythm_are_short_recur_and_follow_the_day():
    phases = rhythm_config().serve.phases
    names, ends = [phase.name for phase in phases], np.cumsum([phase.steps for phase in phases])
    assert ends[-1] == 1600 and all(20 <= phase.steps <= 60 for phase in phases[:-1])
    assert all(a != b for a, b in itertools.pairwise(names))
    assert all(names.count(name) > 5 for name in MIXES if name != RARE) and 0 < names.count(RARE) < 8
    for phase in phases:
        assert abs(sum(phase.start.values()) - 1) < 1e-3 > abs(sum(phase.end.values()) - 1)
        assert all(share > 0 for share in phase.start.values())
    by_hour = {int(end) % DAY: phase.end["python"] for end, phase in zip(ends, phases, strict=True) if phase.name == "code"}
    assert max(by_hour.values()) > 1.5 * min(by_hour.values())
    assert rhythm_phases(800)[:-1] == phases[: len(rhythm_phases(800)) - 1]


def test_batches_follow_the_day_and_stay_within_bounds():
    numbers = np.array(sequences_of_steps(rhythm_config()))
    days = numbers.reshape(4, DAY)
    assert 16 <= numbers.min() < 22 and 42 < numbers.max() <= 48
    assert (days[:, : DAY // 2].mean(axis=1) > days[:, DAY // 2 :].mean(axis=1) + 6).all()
    assert set(sequences_of_steps(RecordConfig())) == {32}


def test_phases_repeat_and_the_last_is_cut_on_its_way():
    phases = (Phase("a", 4, {"x": 1.0}, {"y": 1.0}, (8.0, 16.0)), Phase("b", 2, {"y": 1.0}, {"y": 1.0}))
    repeated = ServeConfig(phases).repeated(9).phases
    assert repeated[:2] == phases
    assert repeated[2] == Phase("a", 3, {"x": 1.0}, {"x": 0.25, "y": 0.75}, (8.0, 14.0))
    assert ServeConfig(phases).repeated(6).phases == phases


def test_what_cannot_be_recorded_is_said_before_anything_is_read(corpus, tmp_path):
    out = tmp_path / "t.npz"
    for arguments, message in (
        ({"tiny": True, "traffic": Traffic.RHYTHM}, "--traffic rhythm and --tiny"),
        ({"single_domains": True, "traffic": Traffic.RHYTHM}, "--traffic rhythm and --single-domains"),
        ({"length": 150}, "--steps is 150; a positive multiple of 100"),
        ({"tiny": True, "length": 0}, "--steps is 0; a positive multiple of 4"),
    ):
        with pytest.raises(InputError, match=message):
            record_command(corpus, out, checkpoint=tmp_path / "moe.pt", **arguments)
    assert not list(tmp_path.iterdir())


def test_stale_package_lists_are_one_line(tmp_path):
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho \"E: Can't find a source to download version '6.1' of 'manpages:all'\" >&2\nexit 100\n")
    apt.chmod(0o755)
    module = "eplb_gap.experiments.loads.moe_trace.debian_corpus"
    for path, message in ((tmp_path, "Can't find a source.*apt-get update"), (tmp_path / "nowhere", "apt-get is not installed")):
        code = f"import os, runpy; os.environ['PATH'] = {str(path)!r}; runpy.run_module({module!r}, run_name='__main__')"
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "corpus")], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert re.search(message, done.stderr)
    assert not (tmp_path / "corpus").exists()


def test_an_interrupted_training_goes_on_and_ends_the_same(recorded, corpus, tmp_path):
    trace, _ = recorded
    with pytest.raises(KeyboardInterrupt):
        record(corpus, tmp_path / "moe.pt", CONFIG, Steps(stop_at=8))
    steps = Steps()
    resumed = record(corpus, tmp_path / "moe.pt", CONFIG, steps)
    assert sum(text.startswith("training") for text in steps.texts) == 6  # from the checkpoint at step 6 of 12
    assert (resumed.loads == trace.loads).all()


def test_a_checkpoint_of_another_run_is_refused(recorded, corpus):
    with pytest.raises(InputError, match="another configuration"):
        record(corpus, recorded[1], replace(CONFIG, seed=8), Steps())


def test_a_corpus_without_the_domains_of_the_traffic_is_refused(corpus, tmp_path):
    with pytest.raises(InputError, match="lacks the domains"):
        record(corpus, tmp_path / "moe.pt", RecordConfig(), Steps())


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({}, "no sub-folder"),
        ({"a/1.txt": b"x"}, "both need at least one"),
        ({f"a/{n}.txt": b"\xff\xfe" for n in range(9)}, "not UTF-8"),
    ],
)
def test_a_bad_corpus_is_one_clear_error(tmp_path, files, text):
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=text):
        read_corpus(tmp_path, 1000)


def test_a_missing_corpus_is_named(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        read_corpus(tmp_path / "nowhere", 1000)


@pytest.mark.parametrize("lacking", ["tokenizers", "grouped_mm"])
def test_without_its_extra_a_recording_says_what_to_install(corpus, tmp_path, monkeypatch, lacking):
    if lacking == "tokenizers":
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    else:
        monkeypatch.delattr("torch.nn.functional.grouped_mm")
    with pytest.raises(InputError, match=rf"needs \S*{lacking}.*pip install 'eplb-gap\[record\]'"):
        record(corpus, tmp_path / "moe.pt", CONFIG, Steps())
    assert not list(tmp_path.iterdir())
