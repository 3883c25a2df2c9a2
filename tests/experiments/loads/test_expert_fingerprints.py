"""Requests of GPT-OSS-20B are read as their repository writes them; samples are made to its layout, nothing of it is shipped."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from eplb_gap.experiments.loads import expert_fingerprints, public_sources
from eplb_gap.experiments.loads.expert_fingerprints import Request, arrays, counts_of, data_folder, read_request, selected_files
from eplb_gap.experiments.loads.public_counts import DECODED
from eplb_gap.experiments.loads.public_routing import ROUTED
from eplb_gap.experiments.loads.public_series import DECODE_SERIES
from eplb_gap.problem import InputError
from eplb_gap.problem.digest import array_sha256


def routed(rng, tokens):
    return np.argsort(rng.random((tokens, 24, 32)), axis=2)[:, :, :4].astype(np.uint8)


def document(experts, row=7):
    layers = [{f"layer_{at}": {"selected_experts": e.tolist(), "selected_probs": []} for at, e in enumerate(t)} for t in experts]
    return {"row_index": row, "category": "another", "router_data": [{f"token_{90 + i}": t} for i, t in enumerate(layers)]}


def written(folder, content, name="True_False_examples.json"):
    path = folder / "data" / "mmlu_test" / "anatomy" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_request_keeps_the_experts_of_every_token_in_order(tmp_path):
    experts = routed(np.random.default_rng(1), 3)
    found = read_request(written(tmp_path / "clone", document(experts)))
    assert (found.dataset, found.category, found.row) == ("mmlu_test", "anatomy", 7)
    assert found.experts.dtype == np.uint8 and np.array_equal(found.experts, experts)
    assert data_folder(tmp_path) == tmp_path / "clone" / "data"


def broken(change):
    def make():
        told = document(routed(np.random.default_rng(2), 1))
        change(told, next(iter(told["router_data"][0].values())))
        return told

    return make


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: "{", "no JSON|JSON"),
        (lambda: [], "holds no request"),
        (broken(lambda told, token: told.update(router_data=[])), "holds no request"),
        (broken(lambda told, token: told.update(row_index=True)), "holds no request"),
        (broken(lambda told, token: told.update(router_data=[3])), "token 0, layer_0: selected_experts is None"),
        (broken(lambda told, token: token.pop("layer_23")), "token 0, layer_23"),
        (broken(lambda told, token: token["layer_2"].update(selected_experts=[1, 2, 3])), "4 numbers of experts"),
        (broken(lambda told, token: token["layer_2"].update(selected_experts=[1, 2, 3, 1])), "different numbers below 32"),
        (broken(lambda told, token: token["layer_2"].update(selected_experts=[1, 2, 3, 32])), "different numbers below 32"),
        (broken(lambda told, token: token["layer_2"].update(selected_experts=[1, 2, 3, 4.0])), "4 numbers of experts"),
    ],
)
def test_a_broken_request_is_one_clear_error(tmp_path, content, said):
    with pytest.raises(InputError, match=said):
        read_request(written(tmp_path, content()))


def test_a_large_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(expert_fingerprints, "MOST_BYTES", 10)
    with pytest.raises(InputError, match="at most 10 are read"):
        read_request(written(tmp_path, document(routed(np.random.default_rng(2), 1))))


def test_left_out_requests_are_not_counted_and_a_part_of_the_others_is_refused(tmp_path, monkeypatch):
    written(tmp_path, "{}", "True_True_examples.json")  # on the list of those left out
    chosen = written(tmp_path, "{}")
    with pytest.raises(InputError, match=r"has 1 of the files .* exactly 523 are needed"):
        selected_files(tmp_path / "data")
    monkeypatch.setattr(expert_fingerprints, "SELECTED", 1)
    assert selected_files(tmp_path / "data") == [chosen]
    assert sum(len(names.split(", ")) for names in expert_fingerprints.LEFT_OUT.values()) == 703 - 523


def test_arrays_sum_what_the_tokens_say():
    rng = np.random.default_rng(3)
    lengths = [256, 300, *[2] * 68]
    requests = [Request("ab"[i % 2], f"c{i}", i, routed(rng, n)) for i, n in enumerate(lengths)]
    found = arrays(requests)
    by_set = found[DECODED]["counts"]
    assert found[DECODED]["dataset"].tolist() == ["a", "b"]
    assert by_set.sum() == sum(lengths) * 24 * 4
    assert by_set[0, 5, 9] == sum(int((r.experts[:, 5] == 9).sum()) for r in requests[::2])
    series = found[DECODE_SERIES]
    assert series["requests"] == 2 and series["counts"].shape == (32, 24, 32)
    assert np.array_equal(series["counts"][1], sum(counts_of(r.experts[8:16]) for r in requests[:2]))
    routing = found[ROUTED]
    assert len(routing["row"]) == 60 and (np.diff(routing["row"]) > 0).all()
    at = 30
    start, end = routing["offsets"][at : at + 2]
    assert np.array_equal(routing["routed_experts"][start:end], requests[routing["row"][at]].experts)


def test_conversion_writes_what_hashes_right_and_nothing_else(tmp_path, monkeypatch):
    """With the digests of the sample's own arrays the files are written, and refused again as soon as one number differs."""
    rng = np.random.default_rng(4)
    monkeypatch.setattr(expert_fingerprints, "SELECTED", 1)
    monkeypatch.setattr(expert_fingerprints, "ROUTED_REQUESTS", 1)
    path = written(tmp_path / "clone", document(experts := routed(rng, 256)))
    with pytest.raises(InputError, match=r"counts of gptoss20b_decode_counts_by_dataset\.npz has shape \(1, 24, 32\)"):
        public_sources.convert(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    made = arrays([read_request(path)])
    for source in (own := list(public_sources.SOURCES))[2:]:
        array = made[source.file][source.key]
        changed = {"shape": array.shape, "sha256": array_sha256(array)}
        own[own.index(source)] = dataclasses.replace(source, **changed)
    monkeypatch.setattr(public_sources, "SOURCES", tuple(own))
    assert len(public_sources.convert(tmp_path, tmp_path / "out")) == 3
    assert [source.state(tmp_path / "out") for source in own] == ["missing"] * 2 + ["there"] * 4
    experts[0, 0] = (experts[0, 0] + 1) % 32
    written(tmp_path / "clone", document(experts))
    with pytest.raises(InputError, match="hashes to"):
        public_sources.convert(tmp_path, tmp_path / "other")
