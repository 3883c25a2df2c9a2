"""Which format recorded loads have: told by names, first bytes and keys, never by trying readers."""

from __future__ import annotations

import codecs
import zipfile
from contextlib import suppress
from pathlib import Path

from eplb_gap.problem import files
from eplb_gap.problem.errors import InputError, reason
from eplb_gap.problem.formats.containers.torch_arrays import load_torch
from eplb_gap.problem.formats.loads import megatron, omni_activations, omni_csv, sglang_recorder, tables, tensorrt_llm_statistics

MAX_BYTES = 1 << 40
"""Each reader has its own limit."""
START_BYTES = 1 << 16
NAMES = {
    "sglang-recorder": sglang_recorder.NAME,
    "tensorrt-llm": tensorrt_llm_statistics.NAME,
    "omni-csv": omni_csv.NAME,
    "omni-activations": omni_activations.NAME,
    "megatron": megatron.NAME,
}
JSON_KEYS = {"load_history": "adrs", "snapshots": "vllm-snapshots"}


def recognised(path: Path) -> str | None:
    """Return the name of the format, or None if it is none of them.

    Raises
    ------
    InputError
        If the path cannot be read, or a folder has files of several formats.
    """
    if path.is_dir():
        return _of_folder(path)
    for name, pattern in NAMES.items():
        if pattern.fullmatch(path.name):
            return name
    if path.name == tensorrt_llm_statistics.META:
        return "tensorrt-llm"
    start = files.read_start(path, MAX_BYTES, START_BYTES)
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"PK\x03\x04"):
        return _of_archive(path)
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.startswith(b"{"):
        return _of_json(text)
    header = tables.csv_header(path)
    if header[:2] == ["", "ep_0"]:
        return "omni-csv"
    return "csv" if set(tables.COLUMNS) <= set(header) else None


def _of_folder(folder: Path) -> str | None:
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise InputError(f"folder {folder} cannot be read ({error.strerror})") from None
    found = [name for name, pattern in NAMES.items() if any(map(pattern.fullmatch, names))]
    if len(found) > 1:
        raise InputError(f"folder {folder} holds files of the formats {', '.join(found)}; name one of them, or the format")
    return found[0] if found else None


def _of_archive(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"file {path} is a broken zip file ({reason(error)})") from None
    if any(name.endswith("data.pkl") for name in names):
        return "sglang-recorder" if isinstance(load_torch(path), dict) else "vllm-ascend"
    if "head.npy" in names:
        return "eplb-gap"
    if "dump_version.npy" in names:
        return "megatron"
    return "npz" if "loads.npy" in names else None


def _of_json(start: bytes) -> str | None:
    """Look for a known key among the outermost that the start of a document has."""
    import ijson

    events = ijson.sendable_list()
    parser = ijson.basic_parse_coro(events, use_float=True)
    with suppress(ijson.JSONError, StopIteration):  # what was found before counts; the reader says what is wrong
        parser.send(start)
    depth = 0
    for event, value in events:
        if event in ("start_map", "start_array"):
            depth += 1
        elif event in ("end_map", "end_array"):
            depth -= 1
        elif event == "map_key" and depth == 1 and value in JSON_KEYS:
            return JSON_KEYS[value]
    return None
