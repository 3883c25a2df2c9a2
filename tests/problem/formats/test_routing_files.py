"""Routing files against a recount in plain Python: every format, what is refused, and how much memory a large file takes."""

from __future__ import annotations

import io
import itertools
import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from eplb_gap import read_loads, read_routing
from eplb_gap.experiments.fuzzing.format_samples import (
    DENSE,
    EXPERTS,
    FEW_TOKENS,
    REQUESTS,
    ROUTING_SAMPLES,
    STEP_TOKENS,
    sample_routing,
    write_samples,
)
from eplb_gap.problem import InputError
from eplb_gap.problem.formats.loads.tables import parquet_table
from eplb_gap.problem.formats.routing import rows
from eplb_gap.problem.formats.routing.reading import FORMATS
from eplb_gap.problem.routing.trace import RoutingTrace

CHOSEN = sample_routing()[:, DENSE:].tolist()
STEPS = [CHOSEN[start : start + STEP_TOKENS] for start in (0, STEP_TOKENS)]
FEW = [*CHOSEN[:FEW_TOKENS], *CHOSEN[REQUESTS[0] : REQUESTS[0] + FEW_TOKENS]]
TOLD = {"eplb-gap-routing", "tensorrt-llm-raw", "sglang-tokens"}
"""Formats that tell how many experts there are."""


def counted(tokens: list[list[list[int]]]) -> list[list[int]]:
    """Return the tokens of every layer and expert, one by one."""
    found = [[0] * EXPERTS for _ in tokens[0]]
    for token in tokens:
        for layer, experts in enumerate(token):
            for expert in experts:
                found[layer][expert] += 1
    return found


def pairs(tokens: list[list[list[int]]], layer: int) -> list[list[int]]:
    """Return how many tokens went to both of two experts."""
    found = Counter(pair for token in tokens for pair in itertools.product(token[layer], repeat=2))
    return [[found[one, other] for other in range(EXPERTS)] for one in range(EXPERTS)]


@pytest.mark.parametrize("name", ROUTING_SAMPLES)
def test_every_format_is_what_a_recount_says(tmp_path: Path, name: str) -> None:
    path, format = write_samples(tmp_path, name), name.partition(":")[0]
    routing = read_routing(path)
    held = FEW if name.endswith("json") else CHOSEN if format == "routed-experts" else [*STEPS[0], *STEPS[1]]
    assert routing.experts.tolist() == held
    assert routing.loads().tolist() == counted(held)
    assert [routing.co_activation(layer).tolist() for layer in range(3)] == [pairs(held, layer) for layer in range(3)]
    assert ("largest number" in str(routing.provenance.get("experts"))) == (format not in TOLD)
    if routing.step is not None:
        assert routing.load_trace().loads.tolist() == [counted(step) for step in STEPS]
        loads = next(tmp_path.glob("rank0_raw*")) if format == "tensorrt-llm-raw" else path
        assert read_loads(loads).loads.tolist() == [counted(step) for step in STEPS]
    if format != "parquet-routing":  # its reader starts a process
        if format in TOLD:
            with pytest.raises(InputError, match=rf"experts is {EXPERTS + 1}; .* has {EXPERTS}"):
                read_routing(path, experts=EXPERTS + 1)
        else:
            assert read_routing(path, format, experts=300).num_experts == 300
            with pytest.raises(InputError, match=r"chose \[.*3.*\]; 0 to 2 are needed"):
                read_routing(path, experts=3)


def test_the_samples_cover_every_format() -> None:
    assert {name.partition(":")[0] for name in ROUTING_SAMPLES} == set(FORMATS)


def test_rank_pass_request_and_layer_of_every_token(tmp_path: Path) -> None:
    for name in ("sglang-tokens", "tensorrt-llm-raw"):
        routing = read_routing(write_samples(tmp_path / name, name))
        assert routing.source is not None and routing.step is not None
        assert routing.source.tolist() == [*([0] * 100 + [1] * (STEP_TOKENS - 100))] * 2
        assert np.diff(routing.step).nonzero()[0].tolist() == [STEP_TOKENS - 1]
        assert routing.provenance["layer_ids"] == [1, 2, 3]
    requests = read_routing(write_samples(tmp_path / "requests", "routed-experts")).request
    assert requests is not None and np.bincount(requests).tolist() == [200, 300, 56]
    array = sample_routing().astype(np.int16)
    np.savez(tmp_path / "offsets.npz", prompt_routed_experts=array, offsets=[0, 200, 200, 556])
    requests = read_routing(tmp_path / "offsets.npz").request
    assert requests is not None and np.bincount(requests).tolist() == [200, 0, 356]
    save_file({"routed_experts": array[6:], "prompt_routed_experts": array[:6]}, tmp_path / "both.safetensors")
    both = read_routing(tmp_path / "both.safetensors")
    assert both.experts.tolist() == CHOSEN and both.request is not None and not both.request.any()
    np.save(tmp_path / "plain.npy", np.asfortranarray(array))
    assert read_routing(tmp_path / "plain.npy").experts.tolist() == CHOSEN


def test_ranks_that_recorded_the_same_tokens_are_read_once(tmp_path: Path) -> None:
    path = write_samples(tmp_path, "sglang-tokens")
    first, second = sorted(path.iterdir())
    content = torch.load(first, weights_only=True)
    for record in content["records"]:
        record["rank"] = 1
    torch.save(content, second)
    routing = read_routing(path)
    assert (len(routing.experts), routing.source) == (200, None)
    assert "same tokens" in routing.provenance["notices"][0]
    content["records"][0]["topk_ids_of_layer"] = torch.zeros((4, 0, 8), dtype=torch.int32)  # an idle rank
    torch.save(content, second)
    assert np.bincount(read_routing(path).source).tolist() == [200, 100]  # type: ignore[arg-type]


def test_padding_is_left_out_and_said_and_a_missing_layer_is_refused(tmp_path: Path) -> None:
    padded = np.full((2, 400, 4, 2), -1, dtype=np.int32)
    padded[0, :300], padded[1, :256] = sample_routing()[:300], sample_routing()[300:]
    np.save(tmp_path / "r.npy", padded)
    routing = read_routing(tmp_path / "r.npy", experts=EXPERTS)
    assert routing.experts.tolist() == CHOSEN
    assert routing.provenance["notices"] == ["244 tokens without routing (padding, or not captured) left out"]
    assert routing.request is not None and np.bincount(routing.request).tolist() == [300, 256]
    padded[1, 7, 2] = -1
    np.save(tmp_path / "r.npy", padded)
    with pytest.raises(InputError, match=r"r\.npy: the array: token 7 has no experts in layer 2, where other tokens have"):
        read_routing(tmp_path / "r.npy")


WIDE = np.array([[[0, 1], [2, 3]], [[1, 300], [2, 0]]])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([[[1, 2], [3, 3]]], r"token 0, layer 1 chose \[3, 3\]; different experts"),
        ([[[1, 2]], [[1, -1]]], r"token 1, layer 0 chose \[1, -1\]; -1 is padding, in place of all choices or of none"),
        ([[[1, -2]]], r"chose \[1, -2\]; 0 to 65535"),
        ([[[1, 65536]]], r"chose \[1, 65536\]; 0 to 65535"),
        (
            np.array([[[1, 2]], [[2**64 - 1] * 2]], dtype=np.uint64),
            r"token 1, layer 0 chose \[18446744073709551615, .*; 0 to 65535",
        ),
        (np.array([[[1]], [[65535]]], dtype=np.uint16), "the array has 65535, which is an expert or"),
        (WIDE[:, :, :1] - 1.5, "is float64; integers are needed"),
        ([[[-1, -1]]], "has no token with routed experts"),
        (np.zeros((0, 3, 2), dtype=np.int64), "has no token with routed experts"),
        ([[1, 2]], r"shape \(1, 2\); \[tokens, layers, top-k\]"),
    ],
)
def test_rows_that_are_none(tmp_path: Path, array: Any, message: str) -> None:
    np.save(tmp_path / "r.npy", array)
    with pytest.raises(InputError, match=message):
        read_routing(tmp_path / "r.npy")


def test_the_last_of_16_bits_is_an_expert_where_the_caller_says_so(tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", np.array([[[1]], [[65535]]], dtype=np.uint16))
    assert read_routing(tmp_path / "r.npy", experts=65536).experts.tolist() == [[[1]], [[65535]]]
    with pytest.raises(InputError, match="0 to 63 are needed"):
        read_routing(tmp_path / "r.npy", experts=64)


def test_the_narrowest_type_in_pieces_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PIECE_CHOICES", 4)  # a token at a time: the wide number comes late
    np.savez(tmp_path / "r.npz", routed_experts=WIDE)
    routing = read_routing(tmp_path / "r.npz")
    assert (routing.experts.dtype, routing.num_experts, routing.experts.tolist()) == (np.uint16, 301, WIDE.tolist())


def parquet(rows: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch, path: Path) -> Path:
    """Write a file that is recognised, and have its columns answered without the process that decodes it."""
    path.write_bytes(b"PAR1expert_0PAR1")
    names = list(rows)

    def columns(_path: Path, choose: Any) -> np.ndarray:
        return np.array([rows[name] for name in choose(names)], dtype=np.int64)

    monkeypatch.setattr("eplb_gap.problem.formats.routing.parquet_rows.read_columns", columns)
    return path


TABLE = {"layer": [0, 1, 0, 1], "token": [5, 5, 9, 9], "expert_0": [0, 1, 2, 3], "expert_1": [1, 2, 3, 0]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"expert_1": [0, 2, 3, 0]}, r"token 0, layer 0 chose \[0, 0\]; different experts"),
        ({"expert_1": [-1, 2, 3, 0]}, "-1 is padding"),
        ({"expert_0": [0, 1, 2, 70000]}, "expert_0 of token 9, layer 1 is 70000; 0 to 65535"),
        ({"layer": [0, 1, 0, 0]}, "token 9, layer 0 twice"),
        ({"layer": [0, 1, 0, 2]}, "no row of token 5, layer 2, which others have"),
        ({"layer": [0, 1, -3, 1]}, "layer is -3; numbers from 0 on"),
        ({"step": [4, 4, 3, 3]}, r"step\[1\] is 3, less than the 4 before it; steps never fall"),
        ({"step": [4, 5, 6, 6]}, "step of token 5 differs from layer to layer"),
        ({"source": [0, 0, -1, -1]}, "source is int64 .* at least 0"),
        ({name: [] for name in TABLE}, "has no row"),
    ],
)
def test_tables_that_are_no_routing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, list[int]], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        read_routing(parquet({**TABLE, **changed}, monkeypatch, tmp_path / "r.parquet"))
    assert "r.parquet" in str(refused.value)


def test_columns_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"source": [7, 7, 8, 8], "request": [0, 0, 1, 1], "step": [1, 1, 1, 1], "other": [0] * 4}
    routing = read_routing(parquet({**TABLE, **columns}, monkeypatch, tmp_path / "r.parquet"), experts=4)
    assert routing.experts.tolist() == [[[0, 1], [1, 2]], [[2, 3], [3, 0]]]
    assert [column.tolist() for column in (routing.source, routing.request, routing.step)] == [[7, 8], [0, 1], [1, 1]]  # type: ignore[union-attr]
    with pytest.raises(InputError, match="has the columns layer, token, expert_1; layer, token and expert_0"):
        read_routing(parquet({"layer": [], "token": [], "expert_1": []}, monkeypatch, tmp_path / "r.parquet"))


def test_a_table_that_claims_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_table, "MAX_CELLS", 5 * 1535)
    with pytest.raises(InputError, match="claims 1536 rows; at most 1535 are read"):
        read_routing(write_samples(tmp_path, "parquet-routing"))


def test_files_of_ranks_that_do_not_belong_together(tmp_path: Path) -> None:
    (tmp_path / "meta_info.json").write_text(json.dumps({"num_experts": 4}))
    two = np.array([[0, 1], [2, 3]], dtype=np.int32)
    for tensors, message in (
        ({"0_1": two, "0_2": two[:1]}, r"key '0_2' is I32 of shape \(1, 2\); integers of shape \(2, 2\)"),
        ({"0_1": two, "0_2": two, "1_1": two}, "has no key '1_2'; every step of every rank needs the same layers"),
        ({"0_1": two * 2, "0_2": two}, r"iteration 0: token 1, layer 0 chose \[4, 6\]; 0 to 3"),
        ({"0_1": two.astype(np.float32)}, r"is F32 of shape \(2, 2\); integers \[tokens, top-k\]"),
    ):
        save_file(tensors, tmp_path / "rank0_raw.safetensors")
        with pytest.raises(InputError, match=message):
            read_routing(tmp_path)
    (tmp_path / "rank0_raw.safetensors").rename(tmp_path / "rank1_raw.safetensors")
    with pytest.raises(InputError, match="no file of rank 0 but one of rank 1"):
        read_routing(tmp_path)


@pytest.mark.parametrize(
    ("offsets", "shape"), [([0, 3], (2,)), ([0, 2, 1, 2], (4,)), ([1, 2], (2,)), ([[0, 2]], (1, 2)), ([0.0, 2.0], (2,))]
)
def test_offsets_that_are_none(tmp_path: Path, offsets: Any, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "r.npz", routed_experts=WIDE, offsets=offsets)
    with pytest.raises(InputError, match=r"key 'offsets' is .* and behind them the number of tokens, 2, are needed") as refused:
        read_routing(tmp_path / "r.npz")
    assert str(shape) in str(refused.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "npy"}, "format is 'npy'; the routing formats are eplb-gap-routing, "),
        ({"experts": 0}, "experts is 0; 1 to 65536"),
        ({"experts": True}, "experts is True"),
    ],
)
def test_arguments_that_are_none(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    np.save(tmp_path / "r.npy", WIDE)
    with pytest.raises(InputError, match=message):
        read_routing(tmp_path / "r.npy", **given)
    with pytest.raises(InputError, match=r"nowhere.npy does not exist"):
        read_routing(tmp_path / "nowhere.npy")


def test_a_claim_is_compared_with_the_bytes_before_memory_is_taken(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<i2", "fortran_order": False, "shape": (1 << 24, 8, 8)})
    (tmp_path / "r.npy").write_bytes(buffer.getvalue() + bytes(64))
    with pytest.raises(InputError, match="which its 64 bytes do not hold"):
        read_routing(tmp_path / "r.npy")


def test_a_large_file_takes_the_memory_of_its_trace_and_some_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PIECE_CHOICES", 1 << 14)
    monkeypatch.setattr("eplb_gap.problem.routing.trace.CHECKED_AT_ONCE", 1 << 14)
    array = np.tile(sample_routing()[:500, DENSE:].astype(np.int64), (400, 1, 1))
    np.savez(tmp_path / "r.npz", routed_experts=array)
    np.save(tmp_path / "r.npy", array)
    for name in ("r.npy", "r.npz"):
        tracemalloc.start()
        routing = read_routing(tmp_path / name, experts=EXPERTS)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert np.array_equal(routing.experts, array)
        assert peak < 1.2 * routing.experts.nbytes + (2 << 20) < array.nbytes / 2, name


def test_a_read_only_array_is_kept_and_another_copied() -> None:
    array = np.zeros((2, 1, 1), dtype=np.uint8)
    assert not np.shares_memory(RoutingTrace(array, 2).experts, array)
    array.flags.writeable = False
    assert np.shares_memory(RoutingTrace(array, 2).experts, array)
