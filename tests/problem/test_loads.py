from __future__ import annotations

import json
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

from eplb_gap.problem import InputError, LoadTrace
from eplb_gap.problem.loads import TRACE_FORMAT, TRACE_VERSION, as_loads

MAX_INT64 = 2**63 - 1


def small_trace() -> LoadTrace:
    generator = np.random.default_rng(0)
    return LoadTrace(generator.integers(0, 5000, (3, 2, 8)), {"model": "test", "window_steps": 2})


# Checking loads


def test_integers_and_integral_floats_become_int64() -> None:
    for value in ([[1, 2], [3, 0]], [[1.0, 2.0], [3.0, 0.0]], np.array([[1, 2], [3, 0]], dtype=np.uint8)):
        checked = as_loads(value, "loads", 2)
        assert checked.dtype == np.int64
        assert checked.flags.c_contiguous
        assert checked.tolist() == [[1, 2], [3, 0]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_width_of_float_is_read(dtype: type) -> None:
    assert as_loads(np.array([[1, 2048]], dtype=dtype), "loads", 2).tolist() == [[1, 2048]]


@pytest.mark.parametrize(
    ("bad", "needed"),
    [
        (-1, "non-negative"),
        (-1.0, "non-negative"),
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        (float("-inf"), "finite"),
        (0.5, "integral"),
        (MAX_INT64 // 2 + 1, "small enough"),
        (1e30, "small enough"),
    ],
)
def test_a_bad_entry_is_located_and_the_rule_named(bad: float, needed: str) -> None:
    with pytest.raises(InputError) as caught:
        as_loads([[1, 2], [3, bad]], "loads", 2)
    assert str(caught.value).startswith("loads[1, 1] is ")
    assert f"loads must be {needed}" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ([[1, 2], [3]], "loads is ragged"),
        ([1, 2], "loads has shape (2,); 2 non-empty axes"),
        ([[[1, 2]]], "loads has shape (1, 1, 2); 2 non-empty axes"),
        (5, "loads has shape (); 2 non-empty axes"),
        ([[]], "loads has shape (1, 0); 2 non-empty axes"),
        ([["1", "2"]], "loads has dtype"),
        ([[True, False]], "loads has dtype bool"),
        ([[1j, 2]], "loads has dtype complex128"),
        ([[None, 2]], "loads has dtype object"),
        ([[2**70, 2]], "loads has dtype object"),
    ],
)
def test_a_wrong_shape_or_type_is_described(value: Any, part: str) -> None:
    with pytest.raises(InputError) as caught:
        as_loads(value, "loads", 2)
    assert part in str(caught.value)


@pytest.mark.parametrize("experts", [1, 2, 3, 7])
def test_the_largest_loads_whose_sum_fits_are_taken_and_one_more_is_not(experts: int) -> None:
    most = MAX_INT64 // experts
    assert as_loads([[most] * experts], "loads", 2).sum() == most * experts
    with pytest.raises(InputError, match="small enough"):
        as_loads(np.full((1, experts), most + 1, dtype=np.uint64), "loads", 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("experts", [1, 2, 3, 5, 6])
def test_a_float_that_rounds_to_just_beyond_the_limit_is_refused(experts: int, dtype: Any) -> None:
    value = dtype(MAX_INT64 // experts)
    while int(value) * experts <= MAX_INT64:
        value = np.nextafter(value, dtype(np.inf))
    with pytest.raises(InputError, match="small enough"):
        as_loads(np.full((1, experts), value), "loads", 2)


# The trace


def test_a_trace_needs_three_axes() -> None:
    with pytest.raises(InputError, match="3 non-empty axes"):
        LoadTrace(np.ones((2, 4), dtype=int))


def test_the_loads_of_a_trace_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        small_trace().loads[0, 0, 0] = 1


def test_a_trace_does_not_share_memory_with_the_callers_array() -> None:
    mine = np.ones((2, 1, 2), dtype=np.int64)
    trace = LoadTrace(mine[:1])
    mine[0, 0, 0] = 7
    assert trace.loads.tolist() == [[[1, 1]]]


def test_building_a_trace_leaves_the_callers_array_writeable() -> None:
    mine = np.ones((2, 1, 2), dtype=np.int64)
    LoadTrace(mine)
    assert mine.flags.writeable


def test_windows_count_from_either_end() -> None:
    trace = LoadTrace([[[1, 2]], [[3, 4]], [[5, 6]]])
    assert [trace.window(i).tolist() for i in (0, 2, -1, -3)] == [[[1, 2]], [[5, 6]], [[5, 6]], [[1, 2]]]


@pytest.mark.parametrize("index", [3, -4, 100])
def test_a_window_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(InputError) as caught:
        LoadTrace(np.ones((3, 1, 2), dtype=int)).window(index)
    assert str(caught.value) == f"window is {index}; the trace has windows 0 to 2"


def test_windowed_sums_consecutive_windows_and_says_so() -> None:
    trace = LoadTrace([[[1, 2]], [[3, 4]], [[5, 6]], [[7, 8]]], {"window_steps": 3, "model": "m"})
    summed = trace.windowed(2)
    assert summed.loads.tolist() == [[[4, 6]], [[12, 14]]]
    assert summed.provenance == {"window_steps": 6, "model": "m"}
    assert trace.provenance == {"window_steps": 3, "model": "m"}
    assert LoadTrace(trace.loads).windowed(4).provenance == {"window_steps": 4}
    assert trace.windowed(1).loads.tolist() == trace.loads.tolist()


@pytest.mark.parametrize("steps", [0, -2, 3, 8])
def test_steps_that_do_not_divide_the_windows_are_refused(steps: int) -> None:
    with pytest.raises(InputError) as caught:
        LoadTrace(np.ones((4, 1, 2), dtype=int)).windowed(steps)
    near = {3: ": 2 or 4", 8: ": 4"}.get(steps, "")
    assert str(caught.value) == f"steps is {steps}; a divisor of the trace's 4 windows is needed{near}"


@pytest.mark.parametrize("told", [[1, 2], 0, -1, 2.0, True, "2", None])
def test_lengths_of_windows_that_are_not_one_number_are_refused(told: object) -> None:
    trace = LoadTrace(np.ones((2, 1, 2), dtype=int), {"window_steps": told})
    for use in (lambda: trace.window_steps, lambda: trace.windowed(2)):
        with pytest.raises(InputError, match="one positive integer, the steps of every window, is needed"):
            use()


@pytest.mark.parametrize("steps", [2, 3])
def test_a_windowed_sum_beyond_int64_is_refused_and_not_wrapped(steps: int) -> None:
    with pytest.raises(InputError):
        LoadTrace(np.full((steps, 1, 1), MAX_INT64)).windowed(steps)


def test_skew_by_hand_with_an_empty_layer() -> None:
    skew = LoadTrace([[[4, 0, 0, 0], [0, 0, 0, 0]], [[3, 1, 2, 2], [6, 0, 1, 1]]]).skew(num_groups=2, top=1)
    assert skew["max_over_mean"] == pytest.approx([(4 + 1) / 2, (3 / 2 + 6 / 2) / 2])
    assert skew["cv"] == pytest.approx([3**0.5 / 2, (0.5**0.5 / 2 + 5.5**0.5 / 2) / 2])
    assert skew["top_share"] == pytest.approx([(1 + 1 / 4) / 2, (3 / 8 + 6 / 8) / 2])
    assert skew["group_max_over_mean"] == pytest.approx([(2 + 1) / 2, (4 / 4 + 6 / 4) / 2])


@pytest.mark.parametrize("groups", [0, -1, 3, 8])
def test_groups_that_do_not_divide_the_experts_are_refused(groups: int) -> None:
    with pytest.raises(InputError, match=rf"num_groups is {groups}; a divisor of the 4 experts"):
        LoadTrace(np.ones((1, 1, 4), dtype=int)).skew(num_groups=groups)


def test_drift_by_hand_with_an_empty_layer() -> None:
    # Layer 0: (1/4, 3/4) -> (3/4, 1/4) -> the same doubled; layer 1: flat -> (3/4, 1/4) -> (0, 1).
    trace = LoadTrace([[[1, 3], [0, 0]], [[3, 1], [3, 1]], [[6, 2], [0, 9]]])
    assert trace.drift() == pytest.approx([(0.5 + 0.25) / 2, (0 + 0.75) / 2])


def test_one_window_has_no_drift() -> None:
    assert LoadTrace([[[1, 3]]]).drift().shape == (0,)


# Files


@given(hnp.arrays(np.int64, hnp.array_shapes(min_dims=3, max_dims=3, max_side=4), elements=st.integers(0, MAX_INT64 // 4)))
def test_save_and_load_return_the_same_trace(tmp_path_factory: pytest.TempPathFactory, loads: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace.npz"
    provenance = {"model": "µ", "window_steps": 1, "nested": {"list": [1, None]}}
    LoadTrace(loads, provenance).save(path)
    back = LoadTrace.load(path)
    assert back.loads.dtype == np.int64
    assert back.loads.tolist() == loads.tolist()
    assert back.provenance == provenance


def test_saving_again_writes_the_same_bytes_and_leaves_no_other_file(tmp_path: Path) -> None:
    first, second = tmp_path / "deep" / "a.npz", tmp_path / "deep" / "b.npz"
    small_trace().save(first)
    LoadTrace.load(first).save(str(second))
    assert first.read_bytes() == second.read_bytes()
    assert sorted(p.name for p in first.parent.iterdir()) == ["a.npz", "b.npz"]


@pytest.mark.parametrize(("largest", "dtype"), [(0, "u1"), (255, "u1"), (256, "u2"), (65535, "u2"), (65536, "u4"), (2**32, "u8")])
def test_the_file_holds_the_narrowest_type(tmp_path: Path, largest: int, dtype: str) -> None:
    path = tmp_path / "trace.npz"
    LoadTrace([[[0, largest]]]).save(path)
    with np.load(path, allow_pickle=False) as stored:
        assert stored["loads"].dtype == np.dtype(dtype)
    assert LoadTrace.load(path).loads.tolist() == [[[0, largest]]]


def refuses(path: Path, *parts: str) -> None:
    """Assert that loading raises an InputError of one line that names the file and holds ``parts``."""
    with pytest.raises(InputError) as caught:
        LoadTrace.load(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), *parts):
        assert part in message


def head(**changes: Any) -> bytes:
    return json.dumps({"format": TRACE_FORMAT, "version": TRACE_VERSION, "provenance": {}, **changes}).encode()


def npy(description: str, shape: str, data: bytes) -> bytes:
    """Return an npy file whose header claims what it is told to claim."""
    text = f"{{'descr': '{description}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def craft(path: Path, loads: bytes | None, meta: bytes | None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        if meta is not None:
            archive.writestr("head.npy", npy("|u1", f"({len(meta)},)", meta))
        if loads is not None:
            archive.writestr("loads.npy", loads)
    return path


GOOD = npy("<i8", "(1, 1, 2)", np.array([3, 4]).tobytes())


def test_a_crafted_good_file_is_read(tmp_path: Path) -> None:
    path = craft(tmp_path / "trace.npz", GOOD, head())
    assert LoadTrace.load(path).loads.tolist() == [[[3, 4]]]


def test_fortran_order_and_big_endian_are_read_as_what_they_mean(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    array = np.arange(24).reshape(2, 3, 4)
    np.savez(path, head=np.frombuffer(head(), np.uint8), loads=np.asfortranarray(array).astype(">u2", order="K"))
    assert LoadTrace.load(path).loads.tolist() == array.tolist()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refuses(tmp_path / "none.npz", "does not exist")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    refuses(tmp_path, "no npz file")


def test_a_file_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    small_trace().save(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refuses(path)


def test_a_name_that_claims_utf8_and_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    small_trace().save(path)
    whole = bytearray(path.read_bytes())
    assert whole[30:38] == b"head.npy"  # the first local header, 30 bytes, and its name
    whole[7] |= 0x08  # bit 11 of the flags: the name is UTF-8
    whole[30] = 0xD2
    path.write_bytes(whole)
    refuses(path, "no npz file")


def test_a_corrupted_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    trace = small_trace()
    trace.save(path)
    whole = path.read_bytes()
    escaped, refused = set(), 0
    for position in range(len(whole)):
        broken = bytearray(whole)
        broken[position] ^= 0xFF
        path.write_bytes(broken)
        try:
            back = LoadTrace.load(path)
        except InputError:
            refused += 1
        except Exception as error:
            escaped.add(type(error).__name__)
        else:
            assert back.loads.tolist() == trace.loads.tolist(), position
            assert back.provenance == trace.provenance, position
    assert not escaped
    assert refused > len(whole) // 2


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace.npz"
    path.write_bytes(content)
    refuses(path)


class Bomb:
    """Unpickling an instance leaves a trace in ``exploded``."""

    exploded = False

    def __reduce__(self) -> Any:
        return explode, ()


def explode() -> None:
    Bomb.exploded = True


def test_the_bomb_works() -> None:
    pickle.loads(pickle.dumps(Bomb()))
    assert Bomb.exploded
    Bomb.exploded = False


def test_a_pickle_is_refused_without_being_run(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    path.write_bytes(pickle.dumps(Bomb()))
    refuses(path, "no npz file")
    assert not Bomb.exploded


@pytest.mark.parametrize("entry", ["head", "loads"])
def test_an_object_array_is_refused_without_being_run(tmp_path: Path, entry: str) -> None:
    path = tmp_path / "trace.npz"
    entries = {"head": np.frombuffer(head(), np.uint8), "loads": np.array([[[1, 2]]])}
    np.savez(path, **{**entries, entry: np.array([Bomb()], dtype=object)})
    refuses(path, repr(entry), "pickled objects")
    assert not Bomb.exploded


def test_a_bare_npy_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.npy"
    np.save(path, np.ones((1, 1, 2), dtype=int))
    refuses(path, "no npz file")


@pytest.mark.parametrize("shape", ["(1000000, 1000000, 1000000)", "(2, 2, 100000000)", "(1, 1, 3)", "(1, 1, 1)"])
def test_a_shape_that_the_bytes_do_not_hold_is_refused_without_allocating_it(tmp_path: Path, shape: str) -> None:
    path = craft(tmp_path / "trace.npz", npy("<i8", shape, b"\0" * 16), head())
    tracemalloc.start()
    try:
        refuses(path, f"claims shape {shape}")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


def test_an_entry_that_claims_too_many_bytes_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace.npz"
    LoadTrace(np.zeros((100, 10, 100), dtype=int)).save(path)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr("eplb_gap.problem.loads.MAX_TRACE_BYTES", 10_000)
    refuses(path, "'loads' claims 100128 bytes", "at most 10000")


@pytest.mark.parametrize(
    "loads",
    [
        npy("<i8", "(-1, -1, 2)", b"\0" * 16),
        npy("<i8", "(-1, -2, 1)", b"\0" * 16),
        npy("<U0", "(1, 1, 2)", b""),
        npy("|u1", "(" + "1, " * 70 + ")", b"\0"),
        npy("<i8", "(1.0, 1, 2)", b"\0" * 16),
        npy("nonsense", "(1, 1, 2)", b"\0" * 16),
        npy("<i8", "((1, 1, 2)", b"\0" * 16),
        npy("<i8", "(" * 2000, b"\0" * 16),
        b"\x93NUM",
        b"\x93NUMPY\x09\x00",
        b"",
    ],
    ids=["negative", "negatives", "no width", "70 axes", "float", "type", "syntax", "deep", "short", "version", "empty"],
)
def test_an_array_header_that_makes_no_sense_is_refused(tmp_path: Path, loads: bytes) -> None:
    refuses(craft(tmp_path / "trace.npz", loads, head()))


@pytest.mark.parametrize(
    ("loads", "part"),
    [
        (npy("<i8", "(1, 2)", b"\0" * 16), "3 non-empty axes"),
        (npy("<i8", "(0, 1, 2)", b""), "3 non-empty axes"),
        (npy("<i8", "(1, 1, 2)", np.array([3, -4]).tobytes()), "non-negative"),
        (npy("<f8", "(1, 1, 2)", np.array([3.0, np.nan]).tobytes()), "finite"),
        (npy("<M8[s]", "(1, 1, 2)", b"\0" * 16), "dtype datetime64"),
    ],
)
def test_stored_loads_are_checked_like_any_others(tmp_path: Path, loads: bytes, part: str) -> None:
    with pytest.raises(InputError, match=part):
        LoadTrace.load(craft(tmp_path / "trace.npz", loads, head()))


@pytest.mark.parametrize(("loads", "meta", "missing"), [(None, head(), "'loads'"), (GOOD, None, "'head'")])
def test_a_missing_entry_is_named(tmp_path: Path, loads: bytes | None, meta: bytes | None, missing: str) -> None:
    refuses(craft(tmp_path / "trace.npz", loads, meta), f"no entry {missing}")


@pytest.mark.parametrize(
    ("meta", "parts"),
    [
        (head(version=2), ["version 2", "version 1 is needed"]),
        (head(version="1"), ["version '1'", "version 1 is needed"]),
        (head(format="something else"), ["'something else'", repr(TRACE_FORMAT)]),
    ],
)
def test_another_version_or_format_is_named(tmp_path: Path, meta: bytes, parts: list[str]) -> None:
    refuses(craft(tmp_path / "trace.npz", GOOD, meta), *parts)


@pytest.mark.parametrize(
    "meta",
    [b"", b"\xff\xfe", b"{", b"[]", b"null", b"{}", b'{"format": 1}', head(provenance=[1]), head(provenance=3), b"[" * 100_000],
    ids=["empty", "bytes", "cut", "list", "null", "no keys", "few keys", "provenance list", "provenance number", "deep"],
)
def test_an_unreadable_head_is_refused(tmp_path: Path, meta: bytes) -> None:
    refuses(craft(tmp_path / "trace.npz", GOOD, meta), "unreadable head")
