from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.problem import Deployment, InputError, Instance, Placement, PlacementError, certificate
from eplb_gap.problem.bounds.bounds import mean_bound
from eplb_gap.problem.formats import read_map, write_map
from eplb_gap.problem.formats.maps.maps import FORMATS, WRITTEN
from eplb_gap.problem.uneven_map import GpuLists

DEPLOYMENT = Deployment(4, 6, 3)
SLOTS = [[0, 1, 2, 3, 0, 2], [3, 1, 0, 2, 1, 3]]
LAYERS = [1, 3]
MODEL_LAYERS = 4


def read_slots(path: Path, deployment: Deployment = DEPLOYMENT, **options: Any) -> list[list[int]]:
    found = read_map(path, deployment, **options)
    assert isinstance(found, Placement)
    assert found.num_experts == deployment.num_experts
    assert found.phy2log.dtype == np.int64
    return found.phy2log.tolist()


def stored(path: Path, content: Any) -> Path:
    """Write what another program would have written."""
    if isinstance(content, np.ndarray):
        np.save(path, content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return path


@st.composite
def cases(draw: st.DrawFn) -> tuple[Placement, Deployment, list[int], int]:
    """A deployment, a legal map, the model layers of its rows, and the layers of the model."""
    gpus, per_gpu = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    experts = draw(st.integers(1, gpus * per_gpu))
    spare = gpus * per_gpu - experts
    rows = [
        draw(st.permutations([*range(experts), *draw(st.lists(st.integers(0, experts - 1), min_size=spare, max_size=spare))]))
        for _ in range(draw(st.integers(1, 3)))
    ]
    model_layers = len(rows) + draw(st.integers(0, 3))
    layer_ids = sorted(draw(st.permutations(range(model_layers)))[: len(rows)])
    return Placement(rows, experts), Deployment(experts, gpus * per_gpu, gpus), layer_ids, model_layers


# Round trips


def test_a_written_format_is_named_by_its_suffix() -> None:
    suffixes = [FORMATS[name].suffix for name in ("sglang", "tensorrt-llm", "omni", "certificate")]
    assert suffixes == [".json", ".yaml", ".npy", ".json"]


@pytest.mark.parametrize("name", [name for name in WRITTEN if name != "omni"])
@given(case=cases())
def test_what_is_written_is_read_and_written_again(
    tmp_path_factory: pytest.TempPathFactory, name: str, case: tuple[Placement, Deployment, list[int], int]
) -> None:
    placement, deployment, layer_ids, model_layers = case
    folder = tmp_path_factory.mktemp("maps")
    path, again, bare = folder / f"map{FORMATS[name].suffix}", folder / "again", folder / "no_suffix"
    on_devices = placement.phy2log.reshape(-1, deployment.slots_per_gpu).tolist()
    if name == "vllm-ascend" and any(len(set(experts)) < len(experts) for experts in on_devices):
        with pytest.raises(InputError, match=r"holds an expert twice, which vLLM-Ascend misreads; .* duplicates forbidden"):
            write_map(path, placement, deployment, name, layer_ids, model_layers)
        assert not path.exists()
        return
    write_map(path, placement, deployment, name, layer_ids, model_layers)
    for format in (name, None):
        back = read_map(path, deployment, format, layer_ids)
        assert isinstance(back, Placement)
        assert back.phy2log.tolist() == placement.phy2log.tolist()
        assert back.ranks.tolist() == placement.ranks.tolist()
    write_map(again, back, deployment, name, layer_ids, model_layers)
    assert again.read_bytes() == path.read_bytes()
    bare.write_bytes(path.read_bytes())
    assert read_slots(bare, deployment, layer_ids=layer_ids) == placement.phy2log.tolist()


@given(case=cases())
def test_omni_keeps_the_experts_of_every_gpu_or_says_what_it_cannot(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[Placement, Deployment, list[int], int]
) -> None:
    placement, deployment, layer_ids, _ = case
    path = tmp_path_factory.mktemp("maps") / "map.npy"
    on_gpu = np.sort(placement.by_gpu(deployment.num_gpus), axis=2)
    twice = np.argwhere(on_gpu[:, :, 1:] == on_gpu[:, :, :-1])
    if twice.size:
        with pytest.raises(InputError, match=r"layer \d+, GPU \d+: expert \d+ has \d+ replicas"):
            write_map(path, placement, deployment, "omni", layer_ids)
        assert not path.exists()
        return
    write_map(path, placement, deployment, "omni", layer_ids)
    assert np.load(path).dtype == np.int32
    back = read_map(path, deployment, None, layer_ids)
    assert isinstance(back, Placement)
    assert back.by_gpu(deployment.num_gpus).tolist() == on_gpu.tolist()
    first = path.read_bytes()
    write_map(path, back, deployment, "omni")
    assert path.read_bytes() == first


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("preset", ["dsv3-prefill-ep32", "deepseek-readme"])
def test_hierarchical_deployments_of_real_size_too(tmp_path: Path, name: str, preset: str) -> None:
    deployment = Deployment.preset(preset)
    nodes, experts = deployment.num_nodes, deployment.num_experts
    own = np.arange(experts).reshape(nodes, -1)
    row = np.concatenate([own, own[:, : (deployment.num_slots - experts) // nodes]], axis=1).ravel()
    placement = Placement([row, row], experts)
    path = tmp_path / f"map{FORMATS[name].suffix}"
    write_map(path, placement, deployment, name, [3, 4], 5)
    back = read_map(path, deployment, layer_ids=[3, 4])
    assert isinstance(back, Placement)
    gpus = deployment.num_gpus
    assert np.sort(back.by_gpu(gpus), axis=2).tolist() == np.sort(placement.by_gpu(gpus), axis=2).tolist()


# What is written, to the byte


def test_the_bytes_of_every_text_format(tmp_path: Path) -> None:
    placement = Placement(SLOTS, 4)
    written = {}
    for name in ("sglang", "vllm", "tensorrt-llm", "vllm-ascend", "phy2log-json"):
        write_map(tmp_path / name, placement, DEPLOYMENT, name, LAYERS, MODEL_LAYERS)
        written[name] = (tmp_path / name).read_text()
    trivial = "[0,1,2,3,0,1]"
    assert written["sglang"] == (f'{{"physical_to_logical_map":[{trivial},[0,1,2,3,0,2],{trivial},[3,1,0,2,1,3]]}}\n')
    assert written["vllm"] == "[[0,1,2,3,0,2],[3,1,0,2,1,3]]\n"
    assert written["phy2log-json"] == written["vllm"]
    assert written["tensorrt-llm"] == (
        "num_slots: 6\ninitial_global_assignments:\n  1: [0, 1, 2, 3, 0, 2]\n  3: [3, 1, 0, 2, 1, 3]\nlayer_updates_per_iter: 0\n"
    )
    assert written["vllm-ascend"] == (
        '{"moe_layer_count":2,"layer_list":['
        '{"layer_id":0,"device_count":3,"device_list":[{"device_id":0,"device_expert":[0,1]},'
        '{"device_id":1,"device_expert":[2,3]},{"device_id":2,"device_expert":[0,2]}]},'
        '{"layer_id":1,"device_count":3,"device_list":[{"device_id":0,"device_expert":[3,1]},'
        '{"device_id":1,"device_expert":[0,2]},{"device_id":2,"device_expert":[1,3]}]}]}\n'
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(written)


def test_the_arrays_of_the_npy_formats(tmp_path: Path) -> None:
    write_map(tmp_path / "a.npy", Placement(SLOTS, 4), DEPLOYMENT, "phy2log-npy")
    plain = np.load(tmp_path / "a.npy")
    assert (plain.dtype, plain.tolist()) == (np.int64, SLOTS)
    write_map(tmp_path / "b.npy", Placement(SLOTS, 4), DEPLOYMENT, "omni")
    pattern = np.load(tmp_path / "b.npy")
    assert pattern.dtype == np.int32
    assert pattern.tolist() == [[[1, 1, 0, 0], [0, 1, 0, 1]], [[0, 0, 1, 1], [1, 0, 1, 0]], [[1, 0, 1, 0], [0, 1, 0, 1]]]


def test_without_layer_indices_sglangs_rows_are_all_layers(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    write_map(path, Placement(SLOTS, 4), DEPLOYMENT, "sglang")
    assert json.loads(path.read_text()) == {"physical_to_logical_map": SLOTS}
    assert read_slots(path) == SLOTS


# What other programs write


def test_a_torch_file_of_sglang_is_read(tmp_path: Path) -> None:
    import torch

    for suffix, value in (("pt", torch.tensor(SLOTS)), ("pth", torch.tensor(SLOTS, dtype=torch.int32)), ("bin", SLOTS)):
        torch.save({"physical_to_logical_map": value}, tmp_path / f"map.{suffix}")
        assert read_slots(tmp_path / f"map.{suffix}") == SLOTS
    assert read_slots(tmp_path / "map.bin", format="sglang", layer_ids=[1]) == SLOTS[1:]


def test_one_list_of_vllm_stands_for_every_layer(tmp_path: Path) -> None:
    path = stored(tmp_path / "map.json", SLOTS[0])
    assert read_slots(path) == [SLOTS[0]]
    assert read_slots(path, layer_ids=[3, 7, 9]) == [SLOTS[0]] * 3


def test_a_byte_order_mark_before_json_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_bytes(b"\xef\xbb\xbf \n" + json.dumps(SLOTS).encode())
    assert read_slots(path) == SLOTS


def test_a_tensorrt_file_with_other_rows_order_and_its_optional_keys(tmp_path: Path) -> None:
    text = "layer_updates_per_iter: 2\nep_size: 3\ninitial_global_assignments:\n  9:\n  - 3\n  - 1\n  - 0\n  - 2\n  - 1\n  - 3\n"
    path = stored(tmp_path / "map.yml", text + "  2: [0,1,2,3,0,2]\nnum_slots: 6\n")
    assert read_slots(path) == SLOTS
    assert read_slots(path, layer_ids=[2, 9]) == SLOTS
    assert read_slots(path, layer_ids=[9]) == SLOTS[1:]


def ascend(*layers: list[list[int]], count: int | None = None) -> dict[str, Any]:
    return {
        "moe_layer_count": len(layers) if count is None else count,
        "layer_list": [
            {
                "layer_id": index,
                "device_count": len(layer),
                "device_list": [{"device_id": gpu, "device_expert": experts} for gpu, experts in enumerate(layer)],
            }
            for index, layer in enumerate(layers)
        ],
    }


EVEN = [[0, 1], [2, 3], [0, 2]]
UNEVEN = [[0, 1, 2], [3], [0, 2]]


def test_the_prediction_layer_of_vllm_ascend_is_read_where_it_is_counted(tmp_path: Path) -> None:
    path = stored(tmp_path / "map.json", ascend(EVEN, EVEN[::-1], count=1))
    slots = [[0, 1, 2, 3, 0, 2], [0, 2, 2, 3, 0, 1]]
    assert read_slots(path) == slots
    assert read_slots(path, layer_ids=[3, 4]) == slots
    assert read_slots(path, layer_ids=[3]) == slots[:1]
    with pytest.raises(InputError, match="1 layers; the loads have 3"):
        read_map(path, DEPLOYMENT, layer_ids=[3, 4, 5])


def test_uneven_files_become_uneven_maps(tmp_path: Path) -> None:
    pattern = np.zeros((3, 2, 4), dtype=np.int32)
    for layer, gpus in enumerate((EVEN, UNEVEN)):
        for gpu, experts in enumerate(gpus):
            pattern[gpu, layer, experts] = 1
    for path in (stored(tmp_path / "a.json", ascend(EVEN, UNEVEN)), stored(tmp_path / "b.npy", pattern)):
        found = read_map(path, DEPLOYMENT, layer_ids=[3, 4])
        assert isinstance(found, GpuLists)
        assert found.experts.tolist() == [[[0, 1, -1], [2, 3, -1], [0, 2, -1]], [[0, 1, 2], [3, -1, -1], [0, 2, -1]]]
        assert found.describe() == "GPUs hold 1 to 3 experts"


def test_vllm_ascend_is_written_equally_many_experts_a_device(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="layer 0, device 1 holds 1 experts, device 0 2; vLLM-Ascend needs equally many"):
        write_map(tmp_path / "map.json", Placement([[0, 1, 2]], 3), Deployment(3, slots_per_gpu=[2, 1]), "vllm-ascend")


def test_an_uneven_file_without_an_expert_is_no_map(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.json", ascend([[0, 1, 2], [], [0, 2]]))
    with pytest.raises(PlacementError, match="layer 0: expert 3 has no replica"):
        read_map(path, DEPLOYMENT)


@pytest.mark.parametrize("dtype", ["<i4", ">i2", "|u1", "<i8"])
def test_every_integer_type_of_npy_is_read_as_what_it_means(tmp_path: Path, dtype: str) -> None:
    path = stored(tmp_path / "map.npy", np.asfortranarray(np.array(SLOTS, dtype=dtype)))
    assert read_slots(path) == SLOTS


def test_an_illegal_but_fitting_map_is_left_to_verify(tmp_path: Path) -> None:
    assert read_slots(stored(tmp_path / "map.json", [[0] * 6])) == [[0] * 6]


# What is not written


@pytest.mark.parametrize("name", WRITTEN)
def test_an_illegal_map_is_not_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / "map"
    for slots, error in (([[0, 1, 2, 2, 0, 1]], "expert 3 has no replica"), ([[0, 1, 2, 3, 4, 0]], "expert 4 does not exist")):
        with pytest.raises(PlacementError, match=error):
            write_map(path, Placement(slots, 4), DEPLOYMENT, name, [0], 1)
    forbidden = Deployment(4, 6, 3, duplicates="forbidden")
    with pytest.raises(PlacementError, match="GPU 0 holds expert 0 twice"):
        write_map(path, Placement([[0, 0, 1, 2, 3, 1]], 4), forbidden, name, [0], 1)
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "deepseek"}, "format is 'deepseek'; the map formats are sglang, vllm"),
        ({"format": "tensorrt-llm"}, "layer_ids is None; TensorRT-LLM"),
        ({"format": "sglang", "layer_ids": [1, 2]}, "num_model_layers is None"),
        ({"format": "sglang", "num_model_layers": 3}, "layer_ids is None; which of the 3 layers"),
        ({"format": "sglang", "layer_ids": [1, 3], "num_model_layers": 3}, "layer_ids names layer 3; num_model_layers = 3"),
        ({"format": "vllm", "layer_ids": [1]}, "layer_ids has 1 layers; the placement has 2"),
        ({"format": "vllm", "layer_ids": [1, 1]}, "layer_ids is [1, 1]; ascending"),
        ({"format": "vllm", "layer_ids": [2, 1]}, "layer_ids is [2, 1]; ascending"),
        ({"format": "vllm", "layer_ids": [-1, 1]}, "layer_ids is [-1, 1]; ascending"),
        ({"format": "vllm", "layer_ids": [1.0, 2]}, "layer_ids is [1.0, 2]; ascending"),
        ({"format": "vllm", "layer_ids": []}, "layer_ids is []; ascending"),
        ({"format": "vllm", "num_model_layers": 1}, "num_model_layers is 1; at least the placement's 2"),
        ({"format": "vllm", "deployment": Deployment(4, 8, 4)}, "placement has shape (2, 6)"),
        ({"format": "vllm", "placement": GpuLists.from_lists([UNEVEN], 4)}, "placement is uneven: GPUs hold 1 to 3 experts"),
    ],
)
def test_what_does_not_fit_is_not_written(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    path = tmp_path / "map"
    with pytest.raises(InputError) as caught:
        write_map(path, **{"placement": Placement(SLOTS, 4), "deployment": DEPLOYMENT, **arguments})
    assert message in str(caught.value)
    assert not path.exists()


def test_a_file_that_was_there_survives_a_refusal(tmp_path: Path) -> None:
    path = stored(tmp_path / "map.json", "mine")
    with pytest.raises(PlacementError):
        write_map(path, Placement([[0] * 6], 4), DEPLOYMENT, "vllm")
    assert path.read_text() == "mine"


# Certificates


def test_the_map_of_a_certificate_is_read_and_none_is_written(tmp_path: Path) -> None:
    loads = np.array([[9, 5, 3, 2], [1, 1, 8, 2]])
    deployment = Deployment(4, 6, 3)
    placement = Placement([[0, 1, 0, 2, 1, 3], [2, 0, 2, 1, 2, 3]], 4)
    bounds = [mean_bound(Instance.of_layer(row, deployment)) for row in loads]
    path = tmp_path / "certificate.json"
    certificate.write(path, loads, deployment, placement, bounds)
    assert read_map(path, deployment).phy2log.tolist() == placement.phy2log.tolist()
    with pytest.raises(InputError, match="2 layers"):
        read_map(path, deployment, layer_ids=[0, 1, 2])
    other = stored(tmp_path / "other.json", {"schema": certificate.SCHEMA, "layers": []})
    with pytest.raises(InputError, match="keys schema, phy2log"):
        read_map(other, deployment)
    with pytest.raises(InputError, match="format 'certificate' is read only"):
        write_map(tmp_path / "new.json", placement, deployment, "certificate")
