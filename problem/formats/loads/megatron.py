"""Megatron-Core's expert-load dump: an npz file per rank of one expert-parallel group."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.containers.npz import open_archive, read_entry
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.rank_files import check_ranks, folder_of, matching
from eplb_gap.problem.formats.loads.recording import Progress, Recording, add_counts
from eplb_gap.problem.loads import as_loads

NAME = re.compile(r"mcore_ep_loads_rank\d{1,6}_.*\.npz")
VERSION = "mcore_ep_load_dump_v1"
SHARED = ("layer_numbers", "forward_counts", "ep_group_ranks")


def read(path: Path, _progress: Progress | None) -> Recording:
    """Sum the counts of all ranks; ``path`` is the folder of one group's dumps or a file in it.

    Raises
    ------
    InputError
        If a key is missing, the version is another, a rank of the group is missing, or ranks contradict each other.
    """
    [path] = _recordings(path)
    paths = [file for _, file in matching(path, NAME)] if path.is_dir() else [path]
    if not paths:
        raise InputError(f"folder {path} has no file mcore_ep_loads_rank0_ID.npz")
    total: np.ndarray | None = None
    shared: dict[str, np.ndarray] = {}
    ranks: list[int] = []
    for file in paths:
        where = f"file {file}"
        with open_archive(file) as archive:
            _check_version(read_entry(archive, "dump_version", file), where)
            loads = as_loads(read_entry(archive, "loads", file), f"{where}: loads", 3)
            own = {name: as_loads(read_entry(archive, name, file), f"{where}: {name}", 1) for name in SHARED}
            rank, size = (_scalar(read_entry(archive, name, file), f"{where}: {name}") for name in ("ep_rank", "ep_size"))
        _check_shapes(loads, own, rank, size, where)
        ranks.append(rank)
        if total is None:
            total, shared = np.zeros_like(loads), own
        for name in SHARED:
            if not np.array_equal(own[name], shared[name]):
                raise InputError(f"{where}: {name} is not that of {paths[0].name}; a folder holds the dumps of one group")
        add_counts(total, loads, f"{where}: loads")
    assert total is not None
    check_ranks(ranks, f"folder {folder_of(path)}")
    if len(ranks) != size:
        raise InputError(f"folder {folder_of(path)} has dumps of {len(ranks)} ranks; all {size} of the group are needed")
    notes = {
        "ranks": size,
        "experts": "physical experts as the file numbers them, taken for logical ones: true without redundant experts",
        "layers": "numbered as in the file (layer_numbers)",
    }
    return Recording(total.transpose(1, 0, 2), shared["layer_numbers"].tolist(), notes=notes)


def _recordings(path: Path) -> list[Path]:
    """Return the folder that a file stands for by its name, or a file of another name."""
    return [folder_of(path) if NAME.fullmatch(path.name) is not None else path]


def _check_version(version: np.ndarray, where: str) -> None:
    found = version.item() if version.size == 1 and version.dtype.kind == "U" else f"of {version.dtype}"
    if found != VERSION:
        raise InputError(f"{where}: dump_version is {found!r:.60}; {VERSION!r} is needed")


def _scalar(value: np.ndarray, where: str) -> int:
    if value.size != 1 or value.dtype.kind not in "iu":
        raise InputError(f"{where} is {value.dtype} of shape {value.shape}; one integer is needed")
    return int(value.item())


def _check_shapes(loads: np.ndarray, shared: dict[str, np.ndarray], rank: int, size: int, where: str) -> None:
    layers, forwards, _ = loads.shape
    for name in ("layer_numbers", "forward_counts"):
        if shared[name].size != layers:
            raise InputError(f"{where}: {name} has {shared[name].size} entries; loads has {layers} layers")
    numbers, counts = shared["layer_numbers"], shared["forward_counts"]
    if (np.diff(numbers) <= 0).any():
        raise InputError(f"{where}: layer_numbers is {numbers[:8].tolist()}; ascending numbers are needed")
    if (counts != forwards).any():
        layer = int(np.flatnonzero(counts != forwards)[0])
        raise InputError(f"{where}: forward_counts[{layer}] is {counts[layer]}; loads has {forwards} forwards, of every layer")
    if shared["ep_group_ranks"].size != size or not 0 <= rank < size:
        raise InputError(f"{where}: ep_rank {rank} and ep_size {size} do not fit {shared['ep_group_ranks'].size} ep_group_ranks")


FORMAT = LoadFormat(
    "megatron",
    "Megatron-Core folder of mcore_ep_loads_rank*_*.npz",
    read,
    folder=True,
    names=NAME,
    recognise=lambda start: "dump_version.npy" in start.entries,
    recordings=_recordings,
)
