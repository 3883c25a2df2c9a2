"""Every format is declared once, listed once, and asked in its turn whether a file is its own."""

from __future__ import annotations

import importlib
import io
import json
import pkgutil
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from eplb_gap.problem import Deployment, InputError
from eplb_gap.problem.formats import loads, maps, read_map
from eplb_gap.problem.formats.loads import recorded
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.recognition import recognised
from eplb_gap.problem.formats.maps import maps as listed_maps
from eplb_gap.problem.formats.maps.map_format import MapFormat


def declared(package: ModuleType, kind: type) -> list[Any]:
    """Return the records that the modules of a package declare."""
    names = [found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    modules = [importlib.import_module(name) for name in names]
    return [value for module in modules for value in vars(module).values() if isinstance(value, kind)]


@pytest.mark.parametrize(
    ("package", "kind", "listed"), [(loads, LoadFormat, recorded.FORMATS), (maps, MapFormat, listed_maps.FORMATS)]
)
def test_every_record_is_listed_under_its_own_name(package: ModuleType, kind: type, listed: dict[str, Any]) -> None:
    found = declared(package, kind)
    assert len(found) == len(listed)
    assert {id(record) for record in found} == {id(record) for record in listed.values()}
    assert all(record.name == name and record.description and "\n" not in record.description for name, record in listed.items())


def test_no_two_formats_claim_one_file_name_or_key() -> None:
    keys = [key for format in recorded.FORMATS.values() for key in format.keys]
    names = [format.names.pattern for format in recorded.FORMATS.values() if format.names is not None]
    assert len(keys) == len(set(keys)) > 1
    assert len(names) == len(set(names)) > 1


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"")
    return buffer.getvalue()


def torch_file(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "format"),
    [
        (archive("loads.npy"), "npz"),
        (archive("loads.npy", "dump_version.npy"), "megatron"),
        (archive("loads.npy", "head.npy"), "eplb-gap"),
        (archive("other.npy"), None),
        (torch_file({}), "sglang-recorder"),
        (torch_file([]), "vllm-ascend"),
        (b"window,layer,expert,tokens\n", "csv"),
        (b",ep_0,window,layer,expert,tokens\n", "omni-csv"),
        (b"\xef\xbb\xbfmore,tokens,expert,layer,window\r\n", "csv"),
        (b"window,layer,expert\n", None),
        (b"Layer_ID;expert_id;count\n", None),
        (b"layer_id,expert_id,count\n", "csv"),
        (b'[{"layer": 1, "expert": {"count": 1}, "count": ', "json-table"),
        (b'{"layer": 1, "expert": 2, "count": 3}\n{"layer"', "json-table"),
        (b'[{"layer": 1}, {"expert": 1, "tokens": 1}]', None),
        (b'{"layer": {"expert": 1, "tokens": 1}}', None),
        (b'{"logical_count": 1, "layer": 1, "expert": 2, "count": 3}', "logical-count"),
        (b'{"id": 1, "choices": [{"routed_experts": null}]}', "routed-experts"),
        (archive("arr_0.npy"), "npz"),
        (archive("arr_0.npy", "arr_1.npy"), None),
        (archive("loads.npy", "routed_experts.npy"), "routed-experts"),
        (torch_file({"routed_experts": []}), "routed-experts"),
        (b"\x16\0\0\0\0\0\0\0" + b'{"routed_experts": {}}', "routed-experts"),
        (b"PAR1,window,layer,expert,tokens\n", "parquet"),
        (b"\x93NUMPY,window,layer,expert,tokens\n", "npy"),
        (b'{"snapshots": [], "load_history": []}', "vllm-snapshots"),
        (b'\xef\xbb\xbf {"x": {"snapshots": 1}, "load_history": [', "adrs"),
        (b'{"x": {"snapshots": 1}}', None),
        (b"{,window,layer,expert,tokens\n", None),
    ],
)
def test_the_particular_format_is_recognised_before_the_general(tmp_path: Path, content: bytes, format: str | None) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert recognised(path, recorded.FORMATS.values()) == format
    assert recognised(path, list(recorded.FORMATS.values())[::-1]) == format


def test_a_torch_file_is_no_archive_of_arrays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(archive("head.npy", "loads.npy", "a/data.pkl"))
    with pytest.raises(InputError, match="no readable torch file"):
        recognised(path, recorded.FORMATS.values())


@pytest.fixture(params=["as listed", "from the end"])
def any_order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "from the end":
        monkeypatch.setattr(listed_maps, "FORMATS", dict(reversed(listed_maps.FORMATS.items())))


ROW = [0, 1, 2, 0]
WHOLE = {"physical_to_logical_map": [ROW]}


@pytest.mark.usefixtures("any_order")
@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({**WHOLE, "layer_list": []}, "has no key 'moe_layer_count'"),
        ({**WHOLE, "moe_layer_count": 1}, "has no key 'layer_list'"),
        ({**WHOLE, "schema": 1}, "is no certificate"),
        ({**WHOLE, "x": 1}, "has a key 'x'; its keys are physical_to_logical_map"),
        ({"x": WHOLE}, "no map format begins like that"),
    ],
)
def test_the_particular_format_of_maps_is_recognised_before_the_general(
    tmp_path: Path, document: dict[str, Any], message: str
) -> None:
    path = tmp_path / "map.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=message):
        read_map(path, Deployment(3, 4, 2))


@pytest.mark.usefixtures("any_order")
def test_arrays_of_three_axes_are_patterns_and_all_others_maps(tmp_path: Path) -> None:
    path = tmp_path / "map.npy"
    for shape, what in (((1, 1, 1), "has 1 GPUs"), ((1, 1, 1, 1), r"integers \[layers, slots\]"), ((4,), r"\[layers, slots\]")):
        np.save(path, np.ones(shape, dtype=np.int64))
        with pytest.raises(InputError, match=what):
            read_map(path, Deployment(3, 4, 2))
