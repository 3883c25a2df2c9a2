"""A seconds-long version of the recording: train, serve, record, resume, repeat."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from eplb_gap.experiments.loads.moe_trace.config import RecordConfig, tiny_config
from eplb_gap.experiments.loads.moe_trace.corpus import read_corpus
from eplb_gap.experiments.loads.moe_trace.recorder import record
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
