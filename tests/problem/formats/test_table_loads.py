from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import polars
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from eplb_gap.experiments.fuzzing.format_samples import sample_loads, write_samples
from eplb_gap.problem import InputError
from eplb_gap.problem.formats import read
from eplb_gap.problem.formats.containers import npz
from eplb_gap.problem.formats.loads.tables import csv_table, parquet_table

LOADS = sample_loads()
HEAD = "window,layer,expert,tokens\n"


def csv(tmp_path: Path, text: str) -> Path:
    (tmp_path / "loads.csv").write_text(text)
    return tmp_path / "loads.csv"


def test_rows_and_columns_come_in_any_order(tmp_path: Path) -> None:
    text = write_samples(tmp_path, "csv").read_text().splitlines()
    rows = [",".join(reversed(line.split(","))) for line in text]
    path = csv(tmp_path, "\r\n".join([rows[0], *rows[:0:-1]]))
    trace = read(path)
    assert np.array_equal(trace.loads, LOADS)
    assert trace.provenance["layer_ids"] == [1, 2, 3]


def test_windows_may_be_numbered_by_their_steps(tmp_path: Path) -> None:
    path = csv(tmp_path, HEAD + "200,0,0,3\n200,0,1,4\n7,0,0,1\n7,0,1,2\n")
    assert read(path).loads.tolist() == [[[1, 2]], [[3, 4]]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "has no rows"),
        ("0,0,0,1\n0,0,1,2\n1,0,0,3\n", "window 1, layer 0, expert 1 is missing"),
        ("0,0,1,1\n1,0,0,2\n1,0,1,3\n", "window 0, layer 0, expert 0 is missing"),
        ("0,0,0,1\n0,0,1,2\n0,0,1,3\n", "window 0, layer 0, expert 1 is given twice"),
        ("0,0,0,1\n0,0,2,2\n", "has 2 experts up to 2"),
        ("-1,0,0,1\n", "column 'window' has -1"),
        ("0,0,0,-1\n", "must be non-negative"),
        ("0,0,0,730.0\n0,0,1,730.5\n", r"line 3: column 'tokens' is '730\.5', a fraction; integers are needed"),
        ("0,0.5,0,1\n", r"line 2: column 'layer' is '0\.5', a fraction"),
        ("0,0,0,x\n", "line 2: column 'tokens' is 'x', no integer of 64 bits"),
        ("0,0,0,nan\n", "line 2: column 'tokens' is 'nan', no integer"),
        ("0,0,0,1e16\n", "line 2: column 'tokens' is '1e16', no integer of 64 bits"),
        ("0,0,0,99999999999999999999\n", "line 2: column 'tokens' is '99999999999999999999', no integer of 64 bits"),
        ("0,0,0,1\n0,0,1,\n", "line 3: column 'tokens' has empty entries"),
        ("0,0,0,1,9\n", "line 2 has 5 entries; the header has 4"),
        ("0,0,0\n", "line 2 has 3 entries; the header has 4"),
        ("0,0,0,1\n0,0,1,2,9\n", "truncated or no CSV"),
        ("0,0,0,1\n0,0,1\n", "line 3: column 'tokens' has empty entries"),
        ("0,7,0,1\n0,7,1,1\n0,8,0,1\n0,8,1,1\n0,9,0,1\n", "layer 9 has 1 experts, 2 layers have 2; all .* leave_out_layers"),
    ],
)
def test_rows_that_are_no_grid(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(csv(tmp_path, HEAD + rows))


def test_a_sparse_table_does_not_claim_memory(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i},0,1\n" for i in range(20_000))
    with pytest.raises(InputError, match="at most 268435456 counts"):
        read(csv(tmp_path, HEAD + rows))


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("window,layer,expert", "has the columns window, layer, expert; "),
        ("layer,expert,share,\x1b[31m", r"has the columns layer, expert, share, \[31m; "),
        ("layer,expert,tokens,Tokens", "has the column 'tokens' twice among layer, expert, tokens, Tokens; "),
    ],
)
@pytest.mark.parametrize("told", ["csv", None])
def test_other_columns(tmp_path: Path, header: str, found: str, told: str | None) -> None:
    with pytest.raises(
        InputError, match=found + r"(separated by commas, )?window \(optional\), layer, expert, tokens are needed"
    ):
        read(csv(tmp_path, header + "\n0,0,0,1\n"), told)


def test_columns_are_found_by_other_names_and_the_rest_is_said_to_be_ignored(tmp_path: Path) -> None:
    found = read(write_samples(tmp_path / "a", "csv:dataframe")).provenance
    assert found["notices"] == [
        "columns read: Window, Layer Id as layer, expert-id as expert, Tokens; ignored: one without name, Host Name"
    ]
    assert "notices" not in read(write_samples(tmp_path / "b", "csv")).provenance
    with pytest.raises(InputError, match=r"expert 0 is given twice; what tells them apart .* is not read: rank"):
        read(csv(tmp_path, "layer,expert,count,rank\n0,0,5,0\n0,0,6,1\n"))
    exact = read(csv(tmp_path, "step,layer,expert,count,tokens,window\n9,0,0,8,5,1\n9,0,0,8,6,2\n"))
    assert exact.loads.tolist() == [[[5]], [[6]]]


@pytest.mark.parametrize("write", ["write_json", "write_ndjson", "write_csv"])
def test_what_a_dataframe_writes_is_read(tmp_path: Path, write: str) -> None:
    table = polars.DataFrame(list(np.ndenumerate(LOADS)), schema=["place", "tokens"], orient="row")
    places = {
        name: [cell[axis] for cell in table["place"].to_list()] for axis, name in enumerate(("window", "layer_id", "expert"))
    }
    getattr(polars.DataFrame({**places, "count": table["tokens"]}), write)(tmp_path / "table")
    assert np.array_equal(read(tmp_path / "table").loads, LOADS)


def test_columns_may_be_objects_of_row_labels(tmp_path: Path) -> None:
    columns = dict(zip(HEAD.strip().split(","), [*np.indices(LOADS.shape).reshape(3, -1), LOADS.ravel()], strict=True))
    document = {name: dict(enumerate(column.tolist())) for name, column in columns.items()}
    (tmp_path / "table").write_text(json.dumps({**document, "host": {}}))
    trace = read(tmp_path / "table")
    assert np.array_equal(trace.loads, LOADS)
    assert trace.provenance["notices"] == ["columns read: window, layer, expert, tokens; ignored: host"]


def test_row_labels_say_which_entries_belong_together(tmp_path: Path) -> None:
    document = {"layer": {"a": 0, "b": 0}, "expert": {"b": 1, "a": 0}, "tokens": {"a": 5, "b": 7}}
    (tmp_path / "table").write_text(json.dumps(document))
    assert read(tmp_path / "table").loads.tolist() == [[[5, 7]]]


def test_a_layer_of_other_experts_is_left_out_where_asked(tmp_path: Path) -> None:
    path = csv(tmp_path, HEAD + "".join(f"0,{layer},{e},5\n" for layer in range(4) for e in range(9 if layer == 3 else 3)))
    with pytest.raises(InputError, match="layer 3 has 9 experts, 3 layers have 3"):
        read(path)
    assert read(path, leave_out_layers=[3]).loads.tolist() == [[[5] * 3] * 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is a list of nothing"),
        ("[3]", "is a list of 3; records"),
        ('[{"layer": 0, "expert": 0}]', "has the columns layer, expert; window"),
        ('[{"layer": 0, "expert": 0, "count": 1}, {"layer": 0, "expert": 1}]', "record 1 is .* a key 'count' is needed"),
        ('[{"layer": 0, "expert": 0, "count": 1.5}]', r"column 'tokens'\[0\] is 1.5, a fraction"),
        ('{"layer": 0, "expert": 0, "count": "1"}', "column 'layer' is 0; a list of integers"),
        ('{"layer": [0, 0], "expert": [0, 1], "count": [1]}', r"columns of \[1, 2\] rows"),
        (
            '{"layer": {"0": 0, "1": 0}, "expert": {"0": 0, "1": 1}, "count": {"0": 5, "2": 7}}',
            "column 'tokens' has other row labels than the rest .'1'.;",
        ),
        ('{"layer": 0, "expert": 0, "count": 1}\n{"layer": 0, "expert": 1', "is no JSON"),
    ],
)
def test_json_that_is_no_table(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "loads.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "loads.json", "json-table")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (polars.DataFrame({"window": [0], "layer": [0], "expert": [0]}), "tokens are needed"),
        (polars.DataFrame({"window": [0], "layer": [0], "expert": [0], "tokens": [1.5]}), "has 1.5 in column 'tokens', row 0"),
        (polars.DataFrame({"window": [0], "layer": [0], "expert": [0], "tokens": ["1"]}), "column 'tokens' of type String"),
        (polars.DataFrame({"window": [0, 0], "layer": [0, 0], "expert": [0, 1], "tokens": [1, None]}), "empty entries"),
        (polars.DataFrame({"window": [0], "layer": [0], "expert": [1], "tokens": [1]}), "experts up to 1"),
    ],
)
def test_parquet_that_is_none(tmp_path: Path, frame: polars.DataFrame, message: str) -> None:
    frame.write_parquet(tmp_path / "loads.parquet")
    with pytest.raises(InputError, match=message):
        read(tmp_path / "loads.parquet")


def test_parquet_takes_any_type_of_integral_numbers_and_other_columns(tmp_path: Path) -> None:
    path = write_samples(tmp_path, "parquet")
    table = polars.read_parquet(path).cast({"tokens": polars.Float64, "window": polars.UInt8, "layer": polars.UInt64})
    table.rename({"tokens": "Count"}).with_columns(polars.lit("x").alias("host")).write_parquet(path)
    assert read(path).provenance["notices"] == ["columns read: window, layer, expert, Count as tokens; ignored: host"]
    assert np.array_equal(read(path).loads, LOADS)


def test_rows_are_counted_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_table, "MAX_ROWS", 47)
    monkeypatch.setattr(csv_table, "MAX_ROWS", 47)
    with pytest.raises(InputError, match="claims 48 rows; at most 47"):
        read(write_samples(tmp_path / "a", "parquet"))
    with pytest.raises(InputError, match="has 459 bytes; at most 376"):
        read(write_samples(tmp_path / "b", "csv"))


@given(arrays(np.uint32, array_shapes(min_dims=2, max_dims=3, max_side=4), elements=st.integers(1, 1000)))
def test_arrays_come_back(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("arrays")
    np.save(folder / "loads.npy", np.asfortranarray(array))
    np.savez(folder / "loads.npz", loads=array, other=np.array(["x"]))
    np.savez(folder / "unnamed.npz", array)
    torch.save(torch.from_numpy(array.astype(np.int64)), folder / "loads.pt")
    assert read(folder / "loads.npz").provenance["notices"] == ["key read: loads; ignored: other"]
    for name in ("loads.npy", "loads.npz", "unnamed.npz", "loads.pt"):
        assert np.array_equal(read(folder / name).loads, array if array.ndim == 3 else array[None])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(3, dtype=np.int64), r"has shape \(3,\); \[windows, layers, experts\]"),
        (np.ones((1, 1, 1, 1), dtype=np.int64), r"has shape \(1, 1, 1, 1\)"),
        (np.ones((0, 2, 2), dtype=np.int64), "non-empty axes"),
        (np.array([[1, np.nan]]), "must be finite"),
        (np.array([[1, 0.5]]), "must be integral"),
        (np.array([["a"]]), "integers are needed"),
        (np.array([[True]]), "dtype bool"),
        (np.array([[1, 2**63]], dtype=np.uint64), "fit int64"),
        (np.ones((1, (1 << 16) + 1, 1), dtype=np.int8), "65537 layers; at most 65536"),
    ],
)
def test_arrays_that_are_no_loads(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "loads.npy", array)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "loads.npy")


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "loads.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "loads.npz", loads=np.array([[{}]], dtype=object))
    for name in ("loads.npy", "loads.npz"):
        with pytest.raises(InputError, match="pickled objects"):
            read(tmp_path / name)


def test_a_huge_claim_of_a_short_array(tmp_path: Path) -> None:
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1048576, 1024, 1024), }\n"
    (tmp_path / "loads.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64))
    with pytest.raises(InputError, match=r"claims shape \(1048576, 1024, 1024\)"):
        read(tmp_path / "loads.npy")


def test_an_npz_entry_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAX_ENTRY_BYTES", 1000)
    np.savez_compressed(tmp_path / "loads.npz", loads=np.zeros((1, 1, 1000), dtype=np.int64))
    with pytest.raises(InputError, match="claims 8128 bytes; at most 1000"):
        read(tmp_path / "loads.npz")


def test_a_torch_file_that_unpacks_to_too_much(tmp_path: Path) -> None:
    from eplb_gap.problem.formats.containers.torch_arrays import load_torch

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(1 << 20))
    (tmp_path / "loads.pt").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="unpacks to 1048576 bytes; at most 4096"):
        load_torch(tmp_path / "loads.pt", 4096)


def test_an_ascend_tensor_of_one_axis(tmp_path: Path) -> None:
    torch.save(torch.ones(3, dtype=torch.int64), tmp_path / "loads.pt")
    with pytest.raises(InputError, match=r"1 axes; \[layers, experts\]"):
        read(tmp_path / "loads.pt")


@pytest.mark.parametrize("name", ["npz", "npy", "parquet", "vllm-ascend", "eplb-gap"])
def test_every_truncation_is_refused(tmp_path: Path, name: str) -> None:
    path = write_samples(tmp_path, name)
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        for format in (None, name):
            with pytest.raises(InputError):
                read(path, format)
