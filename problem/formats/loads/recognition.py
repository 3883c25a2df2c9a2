"""Which format recorded loads have: told by names, first bytes and keys, never by trying readers; or what to say of none."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from eplb_gap.problem.errors import InputError, listed
from eplb_gap.problem.formats.containers import text_files
from eplb_gap.problem.formats.containers.npz import open_archive, read_shape
from eplb_gap.problem.formats.loads.load_format import BINARY, ZIP, FileStart, LoadFormat
from eplb_gap.problem.formats.loads.tables.columns import NEEDED as COLUMNS_NEEDED
from eplb_gap.problem.formats.loads.tables.columns import unlike

MAX_BYTES = 1 << 40
"""Each reader has its own limit."""
START_BYTES = 1 << 16
SHOWN_ENTRIES = 8
MAP_KEYS = {"physical_to_logical_map", "moe_layer_count", "initial_global_assignments"}
LOG_MARKS = (b"balancedness=", b"Expert Balancedness]", b"EPLB step:")
ARRAY_NEEDED = "[layers, experts] or [windows, layers, experts], is needed"
SAFETENSORS_NEEDED = "rank0.safetensors beside meta_info.json, or a key routed_experts, [tokens, layers, top-k], is needed"
JSON_NEEDED = (
    "a key logical_count, load_history, snapshots or routed_experts, or keys such as layer, expert, tokens of a table, are needed"
)
CONTAINERS = {
    ".npz": (ZIP, "zip file", f"a key loads, {ARRAY_NEEDED}"),
    ".npy": (b"\x93NUMPY", "NPY file", f"an array {ARRAY_NEEDED}"),
    ".pt": (ZIP, "zip file", "what torch.save wrote of SGLang's recorder, with the key logical_count or records, is needed"),
    ".parquet": (b"PAR1", "Parquet file", f"the columns {COLUMNS_NEEDED}"),
}
"""Suffix -> first bytes of files that have it, what these are, and what is needed in one."""


def recognised(path: Path, formats: Collection[LoadFormat]) -> str | None:
    """Return the name of the format, or None if it is none of them.

    Raises
    ------
    InputError
        If the path cannot be read, or a folder has files of several formats.
    """
    if path.is_dir():
        return _of_folder(path, formats)
    for format in formats:
        if (format.names is not None and format.names.fullmatch(path.name)) or path.name in format.companions:
            return format.name
    start = _start(path)
    by_key = {key: format.name for format in formats for key in format.keys}
    for key in start.keys:
        if key in by_key:
            return by_key[key]
    for format in sorted(formats, key=lambda format: format.general):
        if format.recognise is not None and format.recognise(start):
            return format.name
    return None


def _of_folder(folder: Path, formats: Collection[LoadFormat]) -> str | None:
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise InputError(f"folder {folder} cannot be read ({error.strerror})") from None
    found = [format.name for format in formats if format.names is not None and any(map(format.names.fullmatch, names))]
    if len(found) > 1:
        raise InputError(f"folder {folder} holds files of the formats {', '.join(found)}; name one of them, or the format")
    return found[0] if found else None


def unrecognised(path: Path, formats: Collection[LoadFormat]) -> str:
    """Return what to say of a file or folder of no known format: what it holds, and what it would need.

    Raises
    ------
    InputError
        If the path cannot be read.
    """
    known = f"the formats are {', '.join(format.name for format in formats)}"
    if path.is_dir():
        names = sorted(file.name for file in path.iterdir())
        return f"folder {path} holds no recorded loads but {listed(names) or 'nothing'}; {known}"
    start = _start(path)
    keys = start.keys or start.record_keys
    if MAP_KEYS & set(keys):
        return f"file {path} has the keys {listed(keys)}: it is a map of experts, which --map takes, and holds no recorded loads"
    if keys:
        return f"file {path} has the keys {listed(keys)}, none of recorded loads; {JSON_NEEDED}"
    if start.is_json:
        return f"file {path} is JSON without keys; {JSON_NEEDED}"
    if start.entries:
        return f"file {path} holds {listed(_arrays(start))}; a key loads, {ARRAY_NEEDED}"
    if start.content[8:9] == b"{":
        names = FileStart(path, start.content[8:]).keys
        return f"file {path} is safetensors with the keys {listed(names)}; {SAFETENSORS_NEEDED}"
    if start.content.startswith(b"\x80"):
        return f"file {path} is a pickle, which is not read, for it can run any code; an NPY or NPZ file, {ARRAY_NEEDED}"
    if any(mark in start.content for mark in LOG_MARKS):
        return f"file {path} is a log: what it says of balancedness holds no loads of single experts; {known}"
    first, kind, needed = CONTAINERS.get(path.suffix.lower(), (b"", "", ""))
    if not start.content.startswith(first):
        return f"file {path} is no {kind}, which {path.suffix} files are; {needed}"
    if (len(start.header) > 1 or set(";\t") & set("".join(start.header))) and not any(
        mark in name for name in start.header for mark in ("\0", "\ufffd")
    ):
        return f"file {path} {unlike(start.header)}"
    return f"{path} holds no recorded loads of a known format; {known}"


def _start(path: Path) -> FileStart:
    """Return the start of a file.

    Raises
    ------
    InputError
        If it cannot be read, or is packed and no text.
    """
    with text_files.opened(path, MAX_BYTES) as (file, plain):
        content = file.read(START_BYTES)
    if plain.packed is not None and content.startswith(BINARY):
        raise InputError(f"file {path} is no text, and packed with {plain.packed}; only text is read packed, so unpack it first")
    return FileStart(path, content)


def _arrays(start: FileStart) -> list[str]:
    """Return the entries of an archive, with shapes where they are arrays."""
    found = []
    for entry in start.entries[:SHOWN_ENTRIES]:
        shape = ""
        if entry.endswith(".npy"):
            with suppress(InputError), open_archive(start.path) as archive:
                shape = f" {list(read_shape(archive, entry.removesuffix('.npy'), start.path))}"
        found.append(f"{entry.removesuffix('.npy')[:30]}{shape}")
    return [*found, *start.entries[SHOWN_ENTRIES:]]
