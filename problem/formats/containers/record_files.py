"""A record folder: what a serving system told a plug-in, one npz file for every call.

``FOLDER/eplb_gap_model_58x256/eplb_gap_call_000000042.npz`` is the 42nd call that was recorded, of a model with 58 layers of 256
experts. Numbers go up over all models and restarts, so that they, not a clock, say what came first. Of its entries ``call`` is
JSON, ``counts`` are the loads, ``in_use`` and ``answered`` the maps before and after, where there were any; ``numpy.load`` reads
them.
"""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from eplb_gap.problem import files
from eplb_gap.problem.deployment import NUMBERS, Deployment
from eplb_gap.problem.errors import InputError, reason, shown
from eplb_gap.problem.formats.containers.limits import check_elements
from eplb_gap.problem.formats.containers.npz import open_archive, read_entry

CALL, COUNTS, IN_USE, ANSWERED = "call", "counts", "in_use", "answered"
VERSION = 1
FILE = re.compile(r"eplb_gap_call_(?P<number>[0-9]{9,15})\.npz")
MODEL = re.compile(r"eplb_gap_model_(?P<layers>[0-9]{1,6})x(?P<experts>[0-9]{1,6})")
MAX_CALL_BYTES = 1 << 20
MAX_SECONDS = float(1 << 40)
MAX_SIZE = 1 << 20
"""GPUs, slots and the like of a deployment; a file that claims more would have a list of so many made."""
CHUNK_BYTES = 1 << 20
"""Bytes that are compressed at once: Python's lock is let go of in between."""
FIELDS = ("version", "time", "host", "host_version", "deployment", "layer_ids", "history", "rounded", "not_recorded")


@dataclass(frozen=True)
class Call:
    """One call of a serving system.

    Parameters
    ----------
    counts : ndarray of int [samples, layers, experts]
        Loads since the call before: one sample that sums them, or a history, oldest first.
    time : float
        When the call came, seconds since 1970, UTC.
    host, host_version : str
        The serving system, by the name of its distribution, and its version or "unknown".
    deployment : Deployment or None
        None where the host's shape was none that can be.
    in_use, answered : ndarray of int [layers, slots], optional
        Maps: what served the loads, and what was answered. -1 where the host has no expert in a slot yet.
    layer_ids : list of int, optional
        Index of each layer in the model, where the host tells.
    history : bool, default False
        Whether a sample is a forward pass of a history that the host handed over.
    rounded : bool, default False
        Whether the host's loads were fractions, of which ``counts`` are the nearest integers.
    not_recorded : int, default 0
        Calls since the file before that could not be recorded.
    """

    counts: np.ndarray
    time: float
    host: str
    host_version: str
    deployment: Deployment | None
    in_use: np.ndarray | None = None
    answered: np.ndarray | None = None
    layer_ids: list[int] | None = None
    history: bool = False
    rounded: bool = False
    not_recorded: int = 0


def call_path(folder: Path, number: int, layers: int, experts: int) -> Path:
    """Return the file of a call."""
    return folder / f"eplb_gap_model_{layers}x{experts}" / f"eplb_gap_call_{number:09d}.npz"


def call_number(path: Path) -> int | None:
    """Return the number of a call that a file's name says, or None."""
    match = FILE.fullmatch(path.name)
    return None if match is None else int(match["number"])


def model_folders(folder: Path) -> list[Path]:
    """Return the folders of all models, by layers and experts; the folder itself where it has none, but files of calls.

    Raises
    ------
    InputError
        If the folder cannot be read.
    """
    inside = _listed(folder)
    found = {path: match for path in inside if (match := MODEL.fullmatch(path.name)) and path.is_dir()}
    if not found and any(FILE.fullmatch(path.name) for path in inside):
        return [folder]
    return sorted(found, key=lambda path: (int(found[path]["layers"]), int(found[path]["experts"])))


def call_paths(folder: Path) -> list[Path]:
    """Return the files of one model, oldest first: by number, not by name.

    Raises
    ------
    InputError
        If the folder cannot be read.
    """
    found = [(number, path) for path in _listed(folder) if (number := call_number(path)) is not None]
    return [path for _, path in sorted(found)]


def is_record(path: Path) -> bool:
    """Return whether a path is a record folder, the folder of a model in one, or named as the file of a call."""
    if not path.is_dir():
        return FILE.fullmatch(path.name) is not None
    return any(FILE.fullmatch(found.name) or MODEL.fullmatch(found.name) for found in _listed(path))


def one_model(path: Path) -> list[Path]:
    """Return the files of calls that a path means, oldest first: itself, or those of the only model in a record folder.

    Raises
    ------
    InputError
        If it is a folder without any, or of several models.
    """
    if not path.is_dir():
        return [path]
    models = model_folders(path)
    if len(models) > 1:
        names = ", ".join(str(model) for model in models)
        raise InputError(f"record folder {path} holds the calls of {len(models)} models; name the folder of one: {names}")
    found = call_paths(models[0]) if models else []
    if not found:
        raise InputError(f"record folder {path} holds no recorded calls")
    return found


def newest_call(paths: list[Path]) -> tuple[int, Call]:
    """Return the index of the newest file that can be read, of those of one model, and its call.

    Raises
    ------
    InputError
        If none can be read: what is wrong with the newest.
    """
    wrong: list[InputError] = []
    for index in reversed(range(len(paths))):
        try:
            return index, read_call(paths[index])
        except InputError as error:
            wrong.append(error)
    raise wrong[0]


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (OSError, ValueError) as error:
        raise InputError(f"folder {folder} cannot be read ({error})") from None


def write_call(file: IO[bytes], call: Call) -> None:
    """Write a call to an open file, arrays in the narrowest type, without pickle; Python's lock is held for short at a time."""
    told = {
        "version": VERSION,
        "time": call.time,
        "host": call.host,
        "host_version": call.host_version,
        "deployment": None if call.deployment is None else call.deployment.as_dict(),
        "layer_ids": call.layer_ids,
        "history": call.history,
        "rounded": call.rounded,
        "not_recorded": call.not_recorded,
    }
    arrays = {
        CALL: np.frombuffer(json.dumps(told).encode(), dtype=np.uint8),
        COUNTS: call.counts.astype(np.min_scalar_type(int(call.counts.max()))),
        **{
            name: table.astype(np.int16 if table.max() < 1 << 15 else np.int32)
            for name, table in ((IN_USE, call.in_use), (ANSWERED, call.answered))
            if table is not None
        },
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy_format.write_array_header_1_0(member, npy_format.header_data_from_array_1_0(array))
                data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
                for start in range(0, len(data), CHUNK_BYTES):
                    member.write(data[start : start + CHUNK_BYTES])


def read_call(path: Path) -> Call:
    """Read the file of one call.

    Parameters
    ----------
    path : Path

    Raises
    ------
    InputError
        Naming the file, the entry or field, what was found and what is needed.
    """
    where = f"file {path}"
    with open_archive(path) as archive:
        told = _told(read_entry(archive, CALL, path), f"{where}: key {CALL!r}")
        names = set(archive.namelist())
        counts = read_entry(archive, COUNTS, path)
        maps = {name: read_entry(archive, name, path) if f"{name}.npy" in names else None for name in (IN_USE, ANSWERED)}
    if counts.ndim != 3 or not counts.size or counts.dtype.kind != "u":
        raise InputError(
            f"{where}: {COUNTS} is {counts.dtype} of shape {counts.shape}; counts [samples, layers, experts] are needed"
        )
    check_elements(counts.shape, f"{where}: {COUNTS}")
    for name, table in maps.items():
        if table is not None and (table.ndim != 2 or not table.size or table.dtype.kind != "i" or table.min() < -1):
            raise InputError(
                f"{where}: {name} is {table.dtype} of shape {table.shape}; experts [layers, slots], or -1, are needed"
            )
        if table is not None and (table.shape[0] != counts.shape[1] or table.max() >= counts.shape[2]):
            raise InputError(
                f"{where}: {name} of shape {table.shape} is no map of the {counts.shape[1]} layers of {counts.shape[2]} experts"
            )
    ids = told["layer_ids"]
    if ids is not None and len(ids) != counts.shape[1]:
        raise InputError(f"{where}: layer_ids has {len(ids)} entries; one for each of the {counts.shape[1]} layers is needed")
    deployment = told["deployment"]
    if deployment is not None and deployment.num_experts != counts.shape[2]:
        raise InputError(f"{where}: the deployment has {deployment.num_experts} experts; the loads have {counts.shape[2]}")
    return Call(
        counts,
        float(told["time"]),
        told["host"],
        told["host_version"],
        deployment,
        maps[IN_USE],
        maps[ANSWERED],
        ids,
        told["history"],
        told["rounded"],
        told["not_recorded"],
    )


def _told(entry: np.ndarray, where: str) -> dict[str, Any]:
    """Return what the entry says, every field checked."""
    if entry.ndim != 1 or entry.dtype != np.uint8 or entry.size > MAX_CALL_BYTES:
        raise InputError(f"{where} is {entry.dtype} of shape {entry.shape}; at most {MAX_CALL_BYTES} bytes of JSON are needed")
    try:
        document = files.strict_json(entry.tobytes().decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no JSON ({reason(error)})") from None
    told = files.fields(document, where, FIELDS)
    if told["version"] != VERSION:
        raise InputError(f"{where}: version is {shown(told['version'])}; {VERSION} is needed")
    time = told["time"]
    if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time <= MAX_SECONDS:
        raise InputError(f"{where}: time is {shown(time)}; seconds since 1970 are needed")
    for name in ("host", "host_version"):
        files.label(told[name], f"{where}: {name}")
    for name in ("history", "rounded"):
        if not isinstance(told[name], bool):
            raise InputError(f"{where}: {name} is {shown(told[name])}; true or false is needed")
    if not _is_number(told["not_recorded"]):
        raise InputError(f"{where}: not_recorded is {shown(told['not_recorded'])}; a number of calls is needed")
    ids = told["layer_ids"]
    if ids is not None and not (isinstance(ids, list) and all(map(_is_number, ids)) and ids == sorted(set(ids))):
        raise InputError(f"{where}: layer_ids is {shown(ids)}; ascending layer numbers are needed")
    if told["deployment"] is not None:
        told["deployment"] = _deployment(told["deployment"], f"{where}: deployment")
    return told


def _deployment(value: Any, where: str) -> Deployment:
    shape = files.fields(value, where, (*NUMBERS, "duplicates"), ("slots_per_gpu", "active"))
    for name in NUMBERS:
        if not _is_number(shape[name]) or shape[name] > MAX_SIZE:
            raise InputError(f"{where}: {name} is {shown(shape[name])}; a number up to {MAX_SIZE} is needed")
    try:
        return Deployment(**shape)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62
