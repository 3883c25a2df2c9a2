"""Nothing hangs: hypothesis draws adversarial rounds, a process that can be killed runs them, Ctrl-C comes at random moments."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap.experiments.fuzzing import hangs


@pytest.fixture(scope="module")
def worker() -> Iterator[hangs.Worker]:
    worker = hangs.Worker()
    assert worker.answer(hangs.COMPILING) == ("ready", "")
    yield worker
    worker.end()


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), number=st.integers(0, 10**6))
def test_every_round_is_over_in_time_and_right(worker: hangs.Worker, seed: int, number: int) -> None:
    asked, interrupt = hangs.draw(seed, number)
    outcome, why, _, _ = hangs.one(worker, asked, interrupt)
    assert outcome in ("done", "interrupted"), (why, asked)


def test_a_wrong_answer_is_noticed(worker: hangs.Worker) -> None:
    asked = hangs.Round("enumerated", [[1, 2, 3]], 0.0, 0.1)  # one load is missing
    outcome, why, _, _ = hangs.one(worker, asked, None)
    assert outcome == "wrong"
    assert "loads has 3 experts" in why


def test_ctrl_c_ends_a_long_round(worker: hangs.Worker) -> None:
    loads = np.exp(np.random.default_rng(3).normal(0.0, 0.3, 256) + 9.0).astype(int).tolist()  # not closed within a minute
    outcome, why, _, reaction = hangs.one(worker, hangs.Round("large pairs", [loads], 0.0, 60.0), 0.3)
    assert outcome == "interrupted", why
    assert reaction is not None


def test_a_hang_is_noticed(monkeypatch: pytest.MonkeyPatch, worker: hangs.Worker) -> None:
    monkeypatch.setattr(hangs, "SLACK", -299.9)
    monkeypatch.setattr(hangs, "PATIENCE", 0.5)
    loads = np.exp(np.random.default_rng(3).normal(0.0, 0.3, 256) + 9.0).astype(int).tolist()  # not closed within a minute
    asked = hangs.Round("large pairs", [loads], 0.0, 300.0)
    assert hangs.one(worker, asked, None)[0] == "hang"


def test_rounds_are_the_same_for_the_same_numbers() -> None:
    assert hangs.draw(3, 5) == hangs.draw(3, 5)
    assert {hangs.draw(0, number)[0].kind for number in range(100)} == set(hangs.DEPLOYMENTS)
