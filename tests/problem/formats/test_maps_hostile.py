from __future__ import annotations

import json
import os
import pickle
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.problem import Deployment, InputError, Placement
from eplb_gap.problem.formats import read_map, write_map
from eplb_gap.problem.formats.maps.map_checks import MAX_MAP_BYTES
from eplb_gap.problem.formats.maps.maps import WRITTEN

DEPLOYMENT = Deployment(4, 6, 3)
ROW = [0, 1, 2, 3, 0, 2]
FOREIGN = "this is a map for another model or deployment"


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_map(path, DEPLOYMENT, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 500 + len(str(path))
    return message


def text(tmp_path: Path, content: Any, suffix: str = "json") -> Path:
    path = tmp_path / f"map.{suffix}"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# JSON


BAD_ROWS = [
    ([], "a list that is not empty is needed"),
    ([[]], "a list that is not empty is needed"),
    ([ROW, ROW[:5]], f"[1] has 5 slots; the deployment has 6 slots: {FOREIGN}"),
    ([ROW, [*ROW, 0]], "[1] has 7 slots; the deployment has 6 slots"),
    ([ROW, 3], "[1] is 3; a list that is not empty is needed"),
    ([[*ROW[:5], 4]], f"[0][5] is 4; the deployment has experts 0 to 3: {FOREIGN}"),
    ([[*ROW[:5], -1]], "[0][5] is -1; the deployment has experts 0 to 3"),
    ([[*ROW[:5], 10**30]], "; the deployment has experts 0 to 3"),
    ([[*ROW[:5], 2.0]], "[0][5] is 2.0; an integer is needed"),
    ([[*ROW[:5], True]], "[0][5] is True; an integer is needed"),
    ([[*ROW[:5], None]], "[0][5] is None; an integer is needed"),
    ([[*ROW[:5], "2"]], "[0][5] is '2'; an integer is needed"),
    ([[*ROW[:5], [2]]], "[0][5] is [2]; an integer is needed"),
    ([[*ROW[:5], {}]], "[0][5] is {}; an integer is needed"),
    ([ROW, {"0": 1}], "[1] is {'0': 1}; a list that is not empty is needed"),
]


@pytest.mark.parametrize(("rows", "message"), BAD_ROWS)
def test_bad_rows_are_located(tmp_path: Path, rows: Any, message: str) -> None:
    assert message in refusal(text(tmp_path, rows))
    assert message in refusal(text(tmp_path, rows), format="phy2log-json")
    assert message in refusal(text(tmp_path, {"physical_to_logical_map": rows}))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW[:5], "has 5 slots"),
        ([*ROW[:5], True], "[0][5] is True"),
        ([*ROW[:5], 4], "experts 0 to 3"),
        ([*ROW[:5], ROW], "an integer is needed"),
    ],
)
def test_a_bad_single_list_is_located(tmp_path: Path, row: Any, message: str) -> None:
    assert message in refusal(text(tmp_path, row))
    assert "a list that is not empty is needed" in refusal(text(tmp_path, row), format="phy2log-json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no map format begins like that"),
        (3, "no map format begins like that"),
        ("null", "no map format begins like that"),
        ('"text\\nof two lines"', "no map format begins like that"),
        ({"some_key": [ROW]}, "no map format begins like that"),
        ({"logical_count": [[1, 2, 3, 4]]}, "holds loads (logical_count) and no map"),
        ({"physical_to_logical_map": [ROW], "other": 1}, "has a key 'other'; its keys are physical_to_logical_map"),
        ({"physical_to_logical_map": 3}, "physical_to_logical_map is 3; a list per layer or a tensor is needed"),
        ("[[0,1", "is no JSON"),
        ("[NaN]", "NaN is no JSON number"),
        ('{"physical_to_logical_map": [], "physical_to_logical_map": []}', "a key twice"),
        ("[" * 100_000, "is no JSON"),
        ("[" + "9" * 5000 + "]", "is no JSON"),
        ("", "is empty"),
    ],
)
def test_what_is_no_map_is_said_so(tmp_path: Path, content: Any, message: str) -> None:
    assert message in refusal(text(tmp_path, content))


def test_sglang_needs_all_the_layers_that_are_asked_for(tmp_path: Path) -> None:
    path = text(tmp_path, {"physical_to_logical_map": [ROW, ROW]})
    assert "has 2 layers; layer_ids names layer 2" in refusal(path, layer_ids=[0, 2])


@pytest.mark.parametrize("layer_ids", [[0], [0, 1, 2]])
def test_formats_of_moe_layers_need_as_many_as_the_loads(tmp_path: Path, layer_ids: list[int]) -> None:
    placement = Placement([ROW, ROW], 4)
    for name in ("vllm", "vllm-ascend", "omni", "phy2log-npy", "phy2log-json"):
        path = tmp_path / name
        write_map(path, placement, DEPLOYMENT, name)
        assert f"has 2 layers; the loads have {len(layer_ids)}" in refusal(path, layer_ids=layer_ids, format=name)


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return a good vLLM-Ascend map, changed at one place; ``...`` takes the key away."""
    device = {"device_id": 0, "device_expert": [0, 1]}
    devices = [device, {"device_id": 1, "device_expert": [2, 3]}, {"device_id": 2, "device_expert": [0, 2]}]
    root: Any = {"moe_layer_count": 1, "layer_list": [{"layer_id": 0, "device_count": 3, "device_list": devices}]}
    *parents, last = (int(key) if key.isdigit() else key for key in path.split("/"))
    inner = root
    for key in parents:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return root


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("moe_layer_count", ..., "has no key 'moe_layer_count'"),
        ("moe_layer_count", True, "moe_layer_count is True; an integer is needed"),
        ("moe_layer_count", 3, "has 1 layers in layer_list; its moe_layer_count is 3"),
        ("layer_list", ..., "has no key 'layer_list'"),
        ("layer_list", [], "layer_list is []"),
        ("layer_list", {}, "layer_list is {}"),
        ("layer_list/0", 3, "layer_list[0] is 3; an object with the keys layer_id"),
        ("layer_list/0/layer_id", 1, "layer_id is 1 at position 0"),
        ("layer_list/0/layer_id", "0", "layer_id is '0'; an integer"),
        ("layer_list/0/device_count", 2, "has 3 devices in device_list; its device_count is 2"),
        ("layer_list/0/device_list/2", ..., "has 2 devices in device_list; its device_count is 3"),
        ("layer_list/0/device_list/1/device_id", 2, "device_list[1]: device_id is 2 at position 1"),
        ("layer_list/0/device_list/1/device_expert", ..., "device_list[1] has no key 'device_expert'"),
        ("layer_list/0/device_list/1/device_expert", 3, "device_expert is 3; a list of experts is needed"),
        ("layer_list/0/device_list/1/device_expert", [2, 4], "device_expert[1] is 4; the deployment has experts 0 to 3"),
        ("layer_list/0/device_list/1/device_expert", [2, False], "device_expert[1] is False; an integer is needed"),
        ("layer_list/0/device_list/1/more", 1, "device_list[1] has a key 'more'"),
        ("more", 1, "has a key 'more'"),
    ],
)
def test_every_wrong_field_of_vllm_ascend_is_named(tmp_path: Path, place: str, value: Any, message: str) -> None:
    assert message in refusal(text(tmp_path, changed(place, value)))


def test_a_vllm_ascend_map_of_another_deployment_is_named(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    write_map(path, Placement([[0, 1, 2, 3]], 4), Deployment(4, 4, 2), "vllm-ascend")
    assert "layer_list[0] has 2 GPUs; the deployment has 3 GPUs" in refusal(path)
    write_map(path, Placement([[0, 1, 2, 3] * 3], 4), Deployment(4, 12, 3), "vllm-ascend")
    assert "has 4 experts on every GPU; the deployment has 2 slots per GPU" in refusal(path)


# YAML

GOOD_YAML = {"num_slots": "6", "initial_global_assignments": "\n  3: [0,1,2,3,0,2]", "layer_updates_per_iter": "0"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_slots": None}, "has no key 'num_slots'"),
        ({"initial_global_assignments": None}, "has no key 'initial_global_assignments'"),
        ({"slots": "6"}, "has a key 'slots'"),
        ({"num_slots": "288"}, "num_slots has 288 slots; the deployment has 6 slots"),
        ({"num_slots": "six"}, "num_slots is 'six'; an integer is needed"),
        ({"num_slots": "6.0"}, "num_slots is '6.0'; an integer is needed"),
        ({"num_slots": "true"}, "num_slots is 'true'; an integer is needed"),
        ({"num_slots": "'6'"}, "num_slots is '6'; an integer is needed"),
        ({"ep_size": "4"}, "ep_size has 4 GPUs; the deployment has 3 GPUs"),
        ({"layer_updates_per_iter": "-1"}, "layer_updates_per_iter is -1; 0 or more"),
        ({"initial_global_assignments": "{}"}, "is no mapping of layers to their slots, or an empty one"),
        ({"initial_global_assignments": "[[0,1,2,3,0,2]]"}, "is no mapping of layers to their slots, or an empty one"),
        ({"initial_global_assignments": "{3: [0,1,2,3,0]}"}, "initial_global_assignments[3] has 5 slots"),
        ({"initial_global_assignments": "{3: [0,1,2,3,0,0x2]}"}, "[3][5] is '0x2'; an integer is needed"),
        ({"initial_global_assignments": "{3: [0,1,2,3,0,02]}"}, "[3][5] is '02'; an integer is needed"),
        ({"initial_global_assignments": "{3: [0,1,2,3,0,9]}"}, "[3][5] is 9; the deployment has experts 0 to 3"),
        ({"initial_global_assignments": "{3: 0}"}, "initial_global_assignments[3] is 0"),
        ({"initial_global_assignments": "{'3': [0,1,2,3,0,2]}"}, "layer is '3'; an integer is needed"),
        ({"initial_global_assignments": "{-3: [0,1,2,3,0,2]}"}, "has layer -3; layer indices from 0 on are needed"),
        ({"initial_global_assignments": "{2001-01-01: [0,1,2,3,0,2]}"}, "layer is '2001-01-01'; an integer is needed"),
    ],
)
def test_every_wrong_field_of_tensorrt_is_named(tmp_path: Path, changes: dict[str, str | None], message: str) -> None:
    lines = [f"{key}: {value}" for key, value in {**GOOD_YAML, **changes}.items() if value is not None]
    assert message in refusal(text(tmp_path, "\n".join(lines), "yaml"))


def test_a_missing_layer_of_tensorrt_is_named(tmp_path: Path) -> None:
    path = text(tmp_path, "\n".join(f"{key}: {value}" for key, value in GOOD_YAML.items()), "yaml")
    assert isinstance(read_map(path, DEPLOYMENT, layer_ids=[3]), Placement)
    assert "has no layer 4, which layer_ids names; its layers are [3]" in refusal(path, layer_ids=[3, 4])


# npy


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([ROW], dtype=float), "is float64 of shape (1, 6)"),
        (np.array([ROW], dtype=bool), "is bool of shape (1, 6)"),
        (np.array([["a"] * 6]), "of shape (1, 6)"),
        (np.array(ROW), "of shape (6,)"),
        (np.array(3), "of shape ()"),
        (np.zeros((0, 6), dtype=int), "of shape (0, 6)"),
        (np.zeros((0, 2, 4), dtype=int), "of shape (0, 2, 4)"),
        (np.zeros((1, 1, 1, 1), dtype=int), "of shape (1, 1, 1, 1)"),
        (np.array([ROW[:5]]), "has 5 slots; the deployment has 6 slots"),
        (np.array([ROW, [0, 1, 2, 3, 0, 4]]), "[1][5] is 4; the deployment has experts 0 to 3"),
        (np.array([[0, 1, 2, 3, 0, -1]], dtype=np.int8), "[0][5] is -1"),
        (np.array([[0, 1, 2, 3, 0, 2**64 - 1]], dtype=np.uint64), "[0][5] is 18446744073709551615"),
        (np.ones((3, 1, 4), dtype=float), "is float64 of shape (3, 1, 4)"),
        (np.ones((2, 1, 4), dtype=int), "has 2 GPUs; the deployment has 3 GPUs"),
        (np.ones((3, 1, 5), dtype=int), "has 5 experts; the deployment has 4 experts"),
        (np.full((3, 1, 4), 2), "[0, 0, 0] is 2; 0 or 1 is needed"),
        (np.full((3, 1, 4), -1), "[0, 0, 0] is -1; 0 or 1 is needed"),
        (np.ones((3, 1, 4), dtype=int), "has 4 experts on every GPU; the deployment has 2 slots per GPU"),
        (np.zeros((3, 1, 4), dtype=int), "has 0 experts on every GPU; the deployment has 2 slots per GPU"),
        (np.zeros(3, dtype=[("a", int)]), "of shape (3,)"),
    ],
)
def test_a_wrong_array_is_described(tmp_path: Path, array: np.ndarray, message: str) -> None:
    path = tmp_path / "map.npy"
    np.save(path, array)
    assert message in refusal(path)


def test_an_array_of_objects_is_refused_without_being_run(tmp_path: Path) -> None:
    path = tmp_path / "map.npy"
    np.save(path, np.array([[Bomb()]], dtype=object))
    assert "pickled objects" in refusal(path)
    path.write_bytes(pickle.dumps(Bomb()))
    assert "no plain array" in refusal(path)
    path.rename(tmp_path / "map")
    assert "no torch file" in refusal(tmp_path / "map")
    assert not Bomb.exploded


def test_a_gigantic_claim_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "map.npy"
    header = b"{'descr': '<i4', 'fortran_order': False, 'shape': (320, 61, 100000000)}\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64)
    tracemalloc.start()
    try:
        assert "claims shape (320, 61, 100000000) of int32, which its 64 bytes do not hold" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


# torch


class Bomb:
    exploded = False

    def __reduce__(self) -> Any:
        return explode, ()


def explode() -> None:
    Bomb.exploded = True


def torch_refusal(tmp_path: Path, content: Any) -> str:
    import torch

    torch.save(content, tmp_path / "map.pt")
    return refusal(tmp_path / "map.pt")


def test_a_wrong_torch_file_is_described(tmp_path: Path) -> None:
    import torch

    def located(value: Any) -> str:
        return torch_refusal(tmp_path, {"physical_to_logical_map": value})

    assert "of torch.float32" in located(torch.ones(1, 6))
    assert "of torch.bool" in located(torch.ones(1, 6, dtype=torch.bool))
    assert "torch.sparse_coo" in located(
        torch.sparse_coo_tensor(torch.tensor([[0], [1]]), torch.tensor([1]), (1, 6), check_invariants=True)
    )
    assert "on meta" in located(torch.zeros(1, 6, dtype=torch.int64, device="meta"))
    assert "claims shape (1000000, 6) of torch.int64, which its 48 bytes do not hold" in located(
        torch.tensor([ROW]).expand(1_000_000, 6)
    )
    assert "has 5 slots" in located(torch.tensor([ROW[:5]]))
    assert "[0][5] is 4; the deployment has experts 0 to 3" in located(torch.tensor([[0, 1, 2, 3, 0, 4]]))
    assert "of shape (6,)" in located(torch.tensor(ROW))
    assert "[0][0] is 0.5; an integer is needed" in located([[0.5, *ROW[1:]]])
    assert "a list per layer or a tensor" in located("text")
    assert "holds loads" in torch_refusal(tmp_path, {"logical_count": torch.ones(1, 1, 4)})
    assert "has no key 'physical_to_logical_map'" in torch_refusal(tmp_path, OrderedDict(records=[]))
    assert "an object with the keys" in torch_refusal(tmp_path, torch.tensor([ROW]))
    assert "has a key 3" in torch_refusal(tmp_path, {"physical_to_logical_map": [ROW], 3: 4})
    assert "pickled objects" in torch_refusal(tmp_path, {"physical_to_logical_map": Bomb()})
    assert not Bomb.exploded


# Any file


@pytest.mark.parametrize("name", WRITTEN)
def test_every_truncation_of_every_format_is_refused_or_read_as_the_map(tmp_path: Path, name: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write_map(whole, Placement([ROW, ROW], 4), DEPLOYMENT, name, [0, 1], 2)
    expected = read_map(whole, DEPLOYMENT, name, [0, 1])
    assert isinstance(expected, Placement)
    content = whole.read_bytes()
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        try:
            found = read_map(cut, DEPLOYMENT, None, [0, 1])
        except InputError as error:
            assert "\n" not in str(error)
        else:  # what follows the map proper: a line end, the optional last line of TensorRT-LLM's file
            assert isinstance(found, Placement)
            assert found.phy2log.tolist() == expected.phy2log.tolist()
            assert length >= content.rfind(b"]")


@pytest.mark.parametrize("suffix", ["", ".json", ".yaml", ".npy", ".pt"])
@given(content=st.binary(max_size=200))
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, suffix: str, content: bytes) -> None:
    path = tmp_path_factory.mktemp("maps") / f"map{suffix}"
    path.write_bytes(content)
    refusal(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
KEYS = ["physical_to_logical_map", "moe_layer_count", "layer_list", "num_slots", "initial_global_assignments"]


@given(content=VALUES | st.dictionaries(st.sampled_from(KEYS), VALUES), suffix=st.sampled_from(["json", "yaml"]))
def test_random_documents_are_refused(tmp_path_factory: pytest.TempPathFactory, content: Any, suffix: str) -> None:
    refusal(text(tmp_path_factory.mktemp("maps"), content, suffix))


def test_a_file_that_is_not_there_no_file_or_too_large_is_refused(tmp_path: Path) -> None:
    for suffix in ("", ".json", ".yaml", ".npy", ".pt"):
        path = tmp_path / f"map{suffix}"
        assert "does not exist" in refusal(path)
        path.touch()
        assert "is empty" in refusal(path)
        path.unlink()
        path.mkdir()
        assert "no regular file" in refusal(path)
        path.rmdir()
        os.mkfifo(path)
        assert "no regular file" in refusal(path)
    for suffix in ("json", "yaml"):
        path = tmp_path / f"large.{suffix}"
        with path.open("wb") as file:
            file.truncate(MAX_MAP_BYTES + 1)
        assert f"at most {MAX_MAP_BYTES} are read" in refusal(path)


def test_a_format_that_the_file_is_not_is_named(tmp_path: Path) -> None:
    path = text(tmp_path, [ROW])
    assert "is JSON; format 'omni' is npy" in refusal(path, format="omni")
    assert "an object with the keys physical_to_logical_map is needed" in refusal(path, format="sglang")
    with pytest.raises(InputError, match="format is 'nonsense'; the map formats are sglang"):
        read_map(path, DEPLOYMENT, "nonsense")
    for layer_ids in ([], [0, 0], [1, 0], [-1], [0.5], ["0"], 3):
        with pytest.raises(InputError, match=r"layer_ids is .*; ascending layer indices from 0 on are needed"):
            read_map(path, DEPLOYMENT, layer_ids=layer_ids)
