from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eplb_gap.experiments.fuzzing.format_samples import DENSE, sample_expected, sample_routing, write_samples
from eplb_gap.problem import InputError
from eplb_gap.problem.formats import read
from eplb_gap.problem.formats.routing import rows

ROUTING = sample_routing()
LOADS = sample_expected("routed-experts")


def saved(tmp_path: Path, array: Any, name: str = "routing.npy") -> Path:
    np.save(tmp_path / name, array)
    return tmp_path / name


def test_tokens_become_steps_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    trace = read(write_samples(tmp_path, "routed-experts"))
    found = trace.provenance
    assert (found["step_tokens"], found["top_k"], found["requests"], found["left_out_tokens"]) == (256, 2, 3, 44)
    assert (found["layer_ids"], found["dropped_layers"], found["num_model_layers"]) == ([1, 2, 3], [0], 4)
    assert found["notices"] == [
        "a step is 256 tokens in the order of the file; experts up to 3 were chosen",
        "the last 44 tokens, which fill no step, left out",
    ]
    assert np.array_equal(read(tmp_path / "routing.npz", window=2, experts=5).loads[0, :, :4], LOADS.sum(axis=0))


def test_tokens_in_pieces_are_counted_as_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PIECE_CHOICES", 101)
    assert np.array_equal(read(write_samples(tmp_path, "routed-experts")).loads, LOADS)


def test_torch_files_hold_one_request_or_several(tmp_path: Path) -> None:
    requests = [torch.from_numpy(part.copy()) for part in np.split(ROUTING, [200, 500])]
    torch.save({"routed_experts": requests}, tmp_path / "routing.pt")
    assert np.array_equal(read(tmp_path / "routing.pt").loads, LOADS)
    torch.save(torch.from_numpy(ROUTING), tmp_path / "routing.pt")
    assert np.array_equal(read(tmp_path / "routing.pt", "routed-experts").loads, LOADS)
    torch.save({"routing": requests}, tmp_path / "routing.pt")
    with pytest.raises(InputError, match="has the keys routing; the key 'routed_experts' is needed"):
        read(tmp_path / "routing.pt", "routed-experts")


def test_padding_and_tokens_that_were_not_captured_fill_no_step(tmp_path: Path) -> None:
    padded = np.full((2, 400, *ROUTING.shape[1:]), -1, dtype=np.int16)
    padded[0, :300], padded[1, :250] = ROUTING[:300], ROUTING[300:550]
    padded[0, 300:303] = 0
    trace = read(saved(tmp_path, padded), "routed-experts")
    assert np.array_equal(trace.loads, LOADS)
    assert trace.provenance["notices"][-1] == "250 tokens without routing (padding, or not captured) left out"
    few = read(saved(tmp_path, ROUTING[:10]), "routed-experts")
    assert few.provenance["step_tokens"] == 10
    assert few.loads.sum() == 10 * 2 * (ROUTING.shape[1] - DENSE)


def test_with_one_choice_zeros_are_expert_0_but_in_a_layer_of_nothing_else(tmp_path: Path) -> None:
    trace = read(saved(tmp_path, [[[0], [0]], [[0], [2]], [[0], [0]]]), "routed-experts")
    assert trace.loads.tolist() == [[[2, 0, 1]]]
    assert trace.provenance["dropped_layers"] == [0]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([[[1, 2], [3, 3]]], r"the array: token 0, layer 1 chose \[3, 3\]; different experts are needed"),
        ([[[1, 2]], [[1, -1]]], r"token 1, layer 0 chose \[1, -1\]; -1 is padding, in place of all choices or of none"),
        ([[[1, -2]]], r"token 0, layer 0 chose \[1, -2\]; 0 to 65535"),
        ([[[1, 65536]]], r"token 0, layer 0 chose \[1, 65536\]; 0 to 65535"),
        ([[[1.0, 2.0]]], "is float64; integers are needed"),
        ([[1, 2]], r"request 0 have shape \(1, 2\); \[tokens, layers, top-k\]"),
        ([[[-1, -1]]], "no token with routed experts"),
        (np.zeros((0, 3, 2), dtype=np.int64), "no token with routed experts"),
    ],
)
def test_choices_that_are_none(tmp_path: Path, array: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(saved(tmp_path, array), "routed-experts")


def base64_of(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"routed_experts": [[[1, 2]], [[1]]]}, "is ragged or empty"),
        ({"routed_experts": [[[1, "2"]]]}, r"request 0 holds '2'; \[tokens"),
        ({"routed_experts": [[[1, 2.5]]]}, "holds 2.5"),
        ({"routed_experts": [[[1, None]]]}, "holds None"),
        ({"routed_experts": [[1, 2]]}, r"request 0 is \[\[1, 2\]\]; \[tokens"),
        ({"routed_experts": [[[[1, 2]]], [[[1, 2], [1, 2]]]]}, r"request 1 has \(2, 2\) layers and choices; \(1, 2\)"),
        ({"routed_experts": "x"}, "no base64"),
        (
            {"meta_info": {"routed_experts": base64_of(ROUTING.astype(np.int32))}},
            r"without a shape, as SGLang .*reshape\(-1, layers",
        ),
        ({"choices": [{"text": "a"}]}, r"has the keys choices; the key 'routed_experts'"),
        ([1], "has a list; the key 'routed_experts'"),
    ],
)
def test_json_without_choices(tmp_path: Path, document: Any, message: str) -> None:
    (tmp_path / "answer.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=message):
        read(tmp_path / "answer.json", "routed-experts")


@pytest.mark.parametrize(("name", "counts"), [("routing.npy", "npy"), ("routing.npz", "npz"), ("routing.pt", "vllm-ascend")])
def test_an_array_that_can_be_routing_or_counts_is_told_by_the_user(tmp_path: Path, name: str, counts: str) -> None:
    path = tmp_path / name
    if name == "routing.npy":
        np.save(path, ROUTING)
    elif name == "routing.npz":
        np.savez_compressed(path, ROUTING)
    else:
        torch.save(torch.from_numpy(ROUTING), path)
    with pytest.raises(InputError, match=r"\(556, 4, 2\), no row .* npy, npz or vllm-ascend, or routed-experts \(--format\)"):
        read(path)
    assert np.array_equal(read(path, "routed-experts").loads, LOADS)
    assert read(path, counts).loads.shape[2] == 2


def test_counts_are_not_taken_for_routing(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(50, (64, 16, 8))
    assert np.array_equal(read(saved(tmp_path, counts)).loads, counts)
    large = np.arange(64 * 16 * 8).reshape(64, 16, 8) * 100
    assert np.array_equal(read(saved(tmp_path, large)).loads, large)
