from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest

from eplb_gap.experiments.fuzzing.format_samples import sample_loads, write_samples
from eplb_gap.problem import InputError
from eplb_gap.problem.formats import read
from eplb_gap.problem.formats.containers import text_files

LOADS = sample_loads()
TEXT = ["csv", "csv:dataframe", "json-table", "logical-count", "adrs", "vllm-snapshots", "omni-csv", "omni-activations"]


def packed(folder: Path, name: str, kind: str) -> Path:
    """Write a sample with all its files packed."""
    path = write_samples(folder, name)
    for file in list(folder.iterdir()):
        content = file.read_bytes()
        if kind == "zst":
            content = pytest.importorskip("backports.zstd").compress(content)
        else:
            content = gzip.compress(content[:100]) + gzip.compress(content[100:])  # a file of two members, as `cat` makes it
        file.with_name(f"{file.name}.{kind}").write_bytes(content)
        file.unlink()
    return path if path.is_dir() else path.with_name(f"{path.name}.{kind}")


@pytest.mark.parametrize("kind", ["gz", "zst"])
@pytest.mark.parametrize("name", TEXT)
def test_text_is_read_packed_as_it_is(tmp_path: Path, name: str, kind: str) -> None:
    path = packed(tmp_path / "sample", name, kind)
    trace = read(path)
    assert np.array_equal(trace.loads, LOADS)
    assert trace.provenance["file"] == path.name


@pytest.mark.parametrize("kind", ["gz", "zst"])
@pytest.mark.parametrize("name", ["csv", "logical-count", "adrs", "omni-csv"])
def test_packed_text_that_is_cut_off_or_damaged(tmp_path: Path, name: str, kind: str) -> None:
    path = packed(tmp_path / "sample", name, kind)
    file = path if path.is_file() else sorted(path.iterdir())[-1]
    content = file.read_bytes()
    for damaged in (content[:-9], content[:12], content[: len(content) // 2] + b"\x00\xff" * 8 + content[len(content) // 2 :]):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=f"is truncated or no {'gzip' if kind == 'gz' else 'zstd'} file"):
            read(path, name)


@pytest.mark.parametrize("name", ["npy", "npz", "eplb-gap", "parquet"])
def test_of_what_is_no_text_and_packed_it_is_said(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / "sample", name, "gz")
    with pytest.raises(InputError, match="is no text, and packed with gzip; only text is read packed, so unpack it first"):
        read(path)


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_what_unpacks_to_far_more_than_text_does_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(text_files, "FREE_BYTES", 1 << 16)
    bomb = b"layer,expert,tokens\n" + b"0,0,1\n" * (1 << 20)
    pack = gzip.compress if kind == "gz" else pytest.importorskip("backports.zstd").compress
    (tmp_path / "bomb.csv").write_bytes(pack(bomb))
    for format in ("csv", "json-table", "omni-csv"):
        with pytest.raises(InputError, match=r"unpacks to more than \d+ bytes; at most 250 times its size is read"):
            read(tmp_path / "bomb.csv", format)


def test_limits_of_readers_hold_for_what_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "text.gz").write_bytes(gzip.compress(b"1234567890"))
    assert text_files.read_text(tmp_path / "text.gz", 30) == "1234567890"
    (tmp_path / "text.gz").write_bytes(gzip.compress(b"1234567890" * 10))
    with pytest.raises(InputError, match="unpacks to more than 50 bytes; at most 50 are read"):
        text_files.read_text(tmp_path / "text.gz", 50)


def test_without_the_library_zstd_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    (tmp_path / "loads.csv.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    with pytest.raises(InputError, match=r"the package backports\.zstd unpacks; it is not installed"):
        read(tmp_path / "loads.csv.zst")
