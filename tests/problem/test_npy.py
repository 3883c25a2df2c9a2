from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eplb_gap.problem import InputError
from eplb_gap.problem.arrays.npy import read_array
from eplb_gap.problem.arrays.trace_file import MOST_HEAD_BYTES, read_trace_file, write_trace_file


def saved(array: np.ndarray, version: tuple[int, int] = (1, 0), **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version, **options)
    return buffer.getvalue()


def claiming(header: str, data: bytes = b"\0" * 16) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


def refusal(content: bytes, limit: int = 1000) -> str:
    with pytest.raises(InputError) as caught:
        read_array(io.BytesIO(content), limit, "file x: entry y")
    message = str(caught.value)
    assert message.startswith("file x: entry y")
    assert "\n" not in message
    return message


@given(
    hnp.arrays(
        st.sampled_from(["<i8", ">i4", "|u1", "<f4", "|b1"]), hnp.array_shapes(min_dims=0, max_side=4), elements=st.integers(0, 1)
    ),
    st.sampled_from([(1, 0), (2, 0)]),
    st.booleans(),
)
def test_what_numpy_writes_is_read(array: np.ndarray, version: tuple[int, int], fortran: bool) -> None:
    array = np.asfortranarray(array) if fortran else array
    back = read_array(io.BytesIO(saved(array, version)), 10_000, "x")
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tolist() == array.tolist()


def test_exactly_the_limit_is_read_and_one_byte_more_is_not() -> None:
    content = saved(np.arange(4))
    assert read_array(io.BytesIO(content), 32, "x").tolist() == [0, 1, 2, 3]
    assert "more than 31 bytes" in refusal(content, 31)


def test_a_large_array_in_several_pieces_is_read() -> None:
    array = np.arange(400_000)
    assert (read_array(io.BytesIO(saved(array)), array.nbytes, "x") == array).all()


def test_no_claim_makes_more_be_allocated_than_there_is() -> None:
    content = claiming("{'descr': '<i8', 'fortran_order': False, 'shape': (1000000, 1000000)}\n")
    tracemalloc.start()
    try:
        assert "claims shape (1000000, 1000000) of int64, which its 16 bytes do not hold" in refusal(content, 4 << 30)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("length", "refused"), [(1 << 25, "a header of 33554432 bytes"), (9000, None)])
def test_a_long_header_is_refused_before_it_is_read(length: int, refused: str | None) -> None:
    text = "{'descr': '<i8', 'fortran_order': False, 'shape': (2,)}".ljust(length - 1) + "\n"
    content = b"\x93NUMPY\x02\x00" + length.to_bytes(4, "little") + text.encode() + b"\0" * 16
    stream = io.BytesIO(content)
    tracemalloc.start()
    try:
        if refused is None:
            assert read_array(stream, 1000, "x").tolist() == [0, 0]
        else:
            with pytest.raises(InputError, match=refused):
                read_array(stream, 1000, "x")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("spaces", [0, MOST_HEAD_BYTES // 2, 1 << 25])
def test_a_head_is_no_place_for_a_bomb(tmp_path: Path, spaces: int) -> None:
    write_trace_file(tmp_path / "a.npz", "f", 1, {"kind": "drawn"}, {"loads": np.arange(3)})
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        head = read_array(archive.open("head.npy"), 1000, "x").tobytes() + b" " * spaces
    np.savez_compressed(tmp_path / "b.npz", head=np.frombuffer(head, np.uint8), loads=np.arange(3))
    tracemalloc.start()
    try:
        if spaces < MOST_HEAD_BYTES:
            assert read_trace_file(tmp_path / "b.npz", "f", 1, ("loads",), 4 << 30)[0] == {"kind": "drawn"}
        else:
            with pytest.raises(InputError, match=f"'head' claims .* at most {MOST_HEAD_BYTES} are read"):
                read_trace_file(tmp_path / "b.npz", "f", 1, ("loads",), 4 << 30)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_head_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="provenance takes"):
        write_trace_file(tmp_path / "a.npz", "f", 1, {"kind": "d" * MOST_HEAD_BYTES}, {"loads": np.arange(3)})
    assert not list(tmp_path.iterdir())


def test_every_truncation_is_refused() -> None:
    content = saved(np.arange(4))
    for length in range(len(content)):
        refusal(content[:length])


def test_trailing_bytes_are_refused() -> None:
    assert "its 33 bytes" in refusal(saved(np.arange(4)) + b"\0")


def test_pickled_objects_are_refused() -> None:
    assert "pickled objects" in refusal(saved(np.array([{}], dtype=object), allow_pickle=True))
    assert "no plain array" in refusal(pickle.dumps([1]))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{",
        "[]",
        "{[]: 1}",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (-2, -1)}",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (2.0,)}",
        "{'descr': '<i8', 'fortran_order': False}",
        "{'descr': [()], 'fortran_order': False, 'shape': (2,)}",
        "{'descr': {}, 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<U0', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1, " * 20 + "16)}",
        "-" * 9000,
        "(" * 9000,
        "__import__('os')",
    ],
)
def test_a_senseless_header_is_refused(header: str) -> None:
    refusal(claiming(header))


def test_an_unknown_version_is_named() -> None:
    assert "npy version 9.1" in refusal(b"\x93NUMPY\x09\x01" + b"\0" * 200)
