"""Windows of public models: what is in a user's files, or one line saying what is wrong with them; nothing without them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from eplb_gap.experiments.loads.public_counts import COUNTS, VARIABLE
from eplb_gap.experiments.loads.public_series import DECODE_SERIES, SERIES, missing, public_series
from eplb_gap.problem import InputError
from eplb_gap.problem.digest import array_sha256

REQUESTS, STEPS, TOP = 5, 8, 4


@pytest.fixture
def counts():
    generator = np.random.default_rng(3)
    return generator.multinomial(REQUESTS * STEPS * TOP, np.full(32, 1 / 32), size=(6, 24)).astype(np.int32)


@pytest.fixture
def folder(tmp_path, counts):
    """Files of the same form, with made-up counts."""
    (tmp_path / DECODE_SERIES).parent.mkdir()
    np.savez(tmp_path / DECODE_SERIES, counts=counts, requests=np.int64(REQUESTS))
    generator = np.random.default_rng(4)
    made = {
        key: generator.multinomial(1000, np.full(experts, 1 / experts), size=(5, 3)).tolist()
        for key, experts in (("olmoe_1b_7b_64", 64), ("mixtral_8x7b_8", 8))
    }
    (tmp_path / COUNTS).write_text(json.dumps(made))
    return tmp_path


def test_decoding_is_a_time_series_and_domains_are_none(folder, counts):
    shapes = {"GPT-OSS-20B": (6, 24, 32), "OLMoE-1B-7B": (5, 3, 64), "Mixtral-8x7B": (5, 3, 8)}
    for model in SERIES:
        trace = public_series(model, folder)
        assert missing(model, str(folder)) is None
        assert trace.loads.shape == shapes[model] and trace.loads.dtype == np.int64
        assert trace.provenance["sha256"] == array_sha256(trace.loads)
        assert trace.provenance["time_series"] == (model == "GPT-OSS-20B")
        assert "Apache-2.0" in trace.provenance["source"] and SERIES[model] in trace.provenance["source"]
    decoded = public_series("GPT-OSS-20B", folder)
    assert (decoded.loads == counts).all() and decoded.provenance["window_steps"] == 8


def test_without_files_there_is_a_reason_and_no_error(tmp_path):
    for model, file in SERIES.items():
        assert missing(model, None) == f"{VARIABLE} names no folder"
        assert missing(model, str(tmp_path)) == f"{tmp_path / file} does not exist"


def broken(counts, **changes):
    return {"counts": counts, "requests": np.int64(REQUESTS), **changes}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (lambda c: {"counts": c}, "has no key 'requests'"),
        (lambda c: {"requests": np.int64(REQUESTS)}, "has no key 'counts'"),
        (lambda c: broken(c.astype(float)), "'counts' has dtype float64; integers"),
        (lambda c: broken(np.array([["a"]])), "'counts' has dtype <U1; integers"),
        (lambda c: broken(c.astype(object)), "counts"),  # a pickle, which is never opened
        (lambda c: broken(c[0]), r"counts has shape \(24, 32\); 3 non-empty axes"),
        (lambda c: broken(c[:0]), r"counts has shape \(0, 24, 32\); 3 non-empty axes"),
        (lambda c: broken(c[:, :, :16]), r"counts has shape \(6, 24, 16\); \[windows, 24, 32\]"),
        (lambda c: broken(c, requests=np.int64(0)), "'requests' is 0; one positive number"),
        (lambda c: broken(c, requests=np.array([5, 5])), r"'requests' is \[5 5\]; one positive number"),
        (lambda c: broken(c, requests=np.float64(5)), "'requests' has dtype float64"),
        (lambda c: broken(c, requests=np.int64(6)), "window 0, layer 0 sums to 160, 6 requests .* to 192"),
        (lambda c: broken(c + (np.arange(6) == 4)[:, None, None]), "window 4, layer 0 sums to 192, .* to 160"),
        (lambda c: broken(c - 100), r"counts\[0, 0, 0\] is -\d+; loads must be non-negative"),
    ],
)
def test_a_broken_series_is_one_clear_error(folder, counts, entries, message):
    np.savez(folder / DECODE_SERIES, **entries(counts))
    with pytest.raises(InputError, match=message):
        public_series("GPT-OSS-20B", folder)


def test_a_damaged_file_is_one_clear_error(folder):
    whole = (folder / DECODE_SERIES).read_bytes()
    for data in (b"", b"no zip", whole[: len(whole) // 2], whole[:200] + b"\xff" * 50 + whole[250:]):
        (folder / DECODE_SERIES).write_bytes(data)
        with pytest.raises(InputError, match="timeseries"):
            public_series("GPT-OSS-20B", folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "olmoe_1b_7b_64"),
        ("{", "real_counts"),
        (json.dumps({"olmoe_1b_7b_64": [[[1, 2], [3, 0], [1, 1]]]}), "window 0, layer 2 sums to 2, layer 0 .* to 3"),
        (json.dumps({"olmoe_1b_7b_64": [[[1, 2.5]]]}), "must be integral"),
    ],
)
def test_broken_counts_of_domains_are_one_clear_error(folder, text, message):
    (folder / COUNTS).write_text(text)
    with pytest.raises(InputError, match=message):
        public_series("OLMoE-1B-7B", folder)


def test_unknown_models_are_named(folder):
    with pytest.raises(InputError, match=r"model is 'GPT-5'; GPT-OSS-20B, OLMoE-1B-7B, Mixtral-8x7B are known"):
        public_series("GPT-5", folder)
