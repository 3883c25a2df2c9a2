"""SGLang's expert distribution recorder: one file of global logical counts, or one file of physical counts per rank."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.formats.containers.limits import check_elements
from eplb_gap.problem.formats.containers.torch_arrays import load_torch, tensor_array
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.physical import logical_counts
from eplb_gap.problem.formats.loads.rank_files import check_ranks, folder_of, matching
from eplb_gap.problem.formats.loads.recording import Progress, Recording, add_counts, left_out_note, without_layers

NAME = re.compile(r"expert_distribution_recorder_(?P<time>\d{1,12}(?:\.\d{1,12})?)(?:_(?P<rank>\d{1,6}))?\.pt")
LOGICAL, RECORDS, MAP = "logical_count", "records", "last_physical_to_logical_map"
ORDER = "circular buffer: once it is full, the oldest step may be anywhere, so the order of windows may be rotated"
APPROXIMATE = "the file does not tell 'stat' from 'stat_approx', whose counts are approximate"


def read(path: Path, _progress: Progress | None, left_out: Collection[int] = ()) -> Recording:
    """Read one dump: a file of the modes ``stat`` and ``stat_approx``, or all ranks' files of ``per_pass`` and ``per_token``.

    Parameters
    ----------
    path : Path
        A file, which stands for those of all ranks beside it. Ranks name their files by their own clocks: the i-th file of every
        rank is one dump.
    left_out : collection of int, optional
        Layers that are not read; their maps may name another number of experts.

    Raises
    ------
    InputError
        If a rank or one of its passes is missing, or a key is.
    """
    paths = next(dump for dump in _dumps(path) if path in dump)
    first = _load(paths[0])
    if LOGICAL in first and RECORDS not in first:
        found = _statistics(first, f"file {paths[0]}")
        return without_layers(found, left_out) if left_out else found
    return _passes(paths, first, left_out)


def recordings(path: Path) -> list[Path]:
    """Return the first file of every dump that a folder holds, by their times, or of the dump that a file is part of.

    Raises
    ------
    InputError
        If a rank is missing, or has other dumps than rank 0.
    """
    dumps = _dumps(path)
    if not dumps:
        raise InputError(f"folder {path} has no file expert_distribution_recorder_TIME.pt or ..._TIME_RANK.pt")
    return [dump[0] for dump in dumps if path.is_dir() or path in dump]


def _dumps(path: Path) -> list[list[Path]]:
    """Return the files of every dump in a folder, oldest dump first, rank by rank; of a file of another name that one alone."""
    named = NAME.fullmatch(path.name)
    if not path.is_dir() and (named is None or named["rank"] is None):
        return [[path]]
    folder = folder_of(path)
    singles, by_rank = [], dict[int, list[tuple[Decimal, Path]]]()
    for match, file in matching(folder, NAME):
        if match["rank"] is None:
            singles.append((Decimal(match["time"]), [file]))
        else:
            by_rank.setdefault(int(match["rank"]), []).append((Decimal(match["time"]), file))
    if by_rank:
        check_ranks(list(by_rank), f"folder {folder}")
    columns = [sorted(by_rank[rank]) for rank in sorted(by_rank)]
    for rank, column in enumerate(columns):
        if len(column) != len(columns[0]):
            raise InputError(
                f"folder {folder} has {len(column)} dumps of rank {rank}; {len(columns[0])}, as of rank 0, are needed"
            )
    dumps = [(dump[0][0], [file for _, file in dump]) for dump in zip(*columns, strict=True)]
    return [files for _, files in sorted([*singles, *dumps])]


def _load(path: Path) -> dict[str, Any]:
    content = load_torch(path)
    if not isinstance(content, dict) or not (LOGICAL in content or RECORDS in content):
        raise InputError(f"file {path} holds {_kind(content)}; a dict with the key {LOGICAL!r} or {RECORDS!r} is needed")
    return content


def _statistics(content: dict[str, Any], where: str) -> Recording:
    array = tensor_array(content[LOGICAL], f"{where}: {LOGICAL}", 3)
    layers = array.shape[1]
    return Recording(array, range(layers), num_model_layers=layers, notes={"order": ORDER, "mode": APPROXIMATE})


def _passes(paths: list[Path], first: dict[str, Any], left_out: Collection[int]) -> Recording:
    """Sum the physical counts of all ranks per forward pass, and give them to the logical experts by the last map."""
    table: np.ndarray | None = None
    numbers: list[int] = []
    counts = np.empty(0, dtype=np.int64)
    for rank, path in enumerate(paths):
        dump = _rank_dump(_load(path) if rank else first, rank, f"file {path}")
        where, own = dump.where, dump.table
        records = [(int(record["forward_pass_id"]), record["global_physical_count"]) for record in dump.records]
        if table is None:
            table, numbers = own, sorted({number for number, _ in records})
            check_elements((len(numbers), *table.shape), where)
            counts = np.zeros((len(numbers), *table.shape), dtype=np.int64)
        elif not np.array_equal(own, table):
            raise InputError(f"{where}: {MAP} is not that of rank 0; ranks of one dump have the same map")
        _check_passes({number for number, _ in records}, numbers, where)
        position = {number: index for index, number in enumerate(numbers)}
        for index, (number, tensor) in enumerate(records):
            name = f"{where}: {RECORDS}[{index}]['global_physical_count']"
            add_counts(counts[position[number]], tensor_array(tensor, name, 2), name)
    assert table is not None
    notes: dict[str, Any] = {
        "ranks": len(paths),
        "forward_passes": [numbers[0], numbers[-1]],
        "map": "the last one, taken for all passes",
    }
    layers = range(table.shape[0])
    if left_out:
        notes |= left_out_note(layers, left_out)
    kept = [layer for layer in layers if layer not in left_out]
    logical = logical_counts(counts[:, kept], table[kept], f"file {paths[0]}")
    return Recording(logical, kept, num_model_layers=len(layers), notes=notes)


@dataclass(frozen=True)
class RankDump:
    """What one rank dumped: its records, checked for what all modes have, and its map [layers, slots]."""

    where: str
    records: list[dict[str, Any]]
    table: np.ndarray


def ranks_of(path: Path) -> list[RankDump]:
    """Return the dumps of all ranks that a file stands for, rank by rank; errors as of :func:`read`."""
    paths = next(dump for dump in _dumps(path) if path in dump)
    return [_rank_dump(_load(file), rank, f"file {file}") for rank, file in enumerate(paths)]


def _rank_dump(content: dict[str, Any], rank: int, where: str) -> RankDump:
    if RECORDS not in content or MAP not in content:
        raise InputError(f"{where} holds {_kind(content)}; {RECORDS!r} and {MAP!r} are needed")
    table = tensor_array(content[MAP], f"{where}: {MAP}", 2)
    _check_records(content[RECORDS], rank, where)
    return RankDump(where, content[RECORDS], table)


def _check_records(records: Any, rank: int, where: str) -> None:
    if not isinstance(records, list) or not records:
        raise InputError(f"{where}: {RECORDS} is {_kind(records)}; a list that is not empty is needed")
    for index, record in enumerate(records):
        inside = f"{where}: {RECORDS}[{index}]"
        if not isinstance(record, dict):
            raise InputError(f"{inside} is {_kind(record)}; a dict is needed")
        for key in ("forward_pass_id", "rank", "global_physical_count"):
            if key not in record:
                raise InputError(f"{inside} has no key {key!r} but {_kind(record)}")
        number = record["forward_pass_id"]
        if type(number) is not int or not 0 <= number < 1 << 62:
            raise InputError(f"{inside}: forward_pass_id is {shown(number)}; a number from 0 on is needed")
        if record["rank"] != rank or type(record["rank"]) is not int:
            raise InputError(f"{inside} is of rank {shown(record['rank'])}; the file is that of rank {rank}")


def _check_passes(found: set[int], needed: list[int], where: str) -> None:
    odd = sorted(found.symmetric_difference(needed))
    if odd:
        what = "does not have" if odd[0] in needed else "has"
        raise InputError(f"{where} {what} forward pass {odd[0]}, unlike the file of rank 0; all ranks must have the same passes")


def _kind(value: Any) -> str:
    """Say what something is without its content, which may be huge."""
    if isinstance(value, dict):
        return f"the keys {shown(list(value))}"
    return f"a {type(value).__name__}"


FORMAT = LoadFormat(
    "sglang-recorder",
    "SGLang expert distribution recorder: .pt of stat or stat_approx, or folder of per_pass or per_token",
    read,
    folder=True,
    names=NAME,
    recognise=lambda start: start.is_torch and isinstance(start.torch, dict),
    general=True,
    recordings=recordings,
    read_without=read,
)
