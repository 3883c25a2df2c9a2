"""vLLM's expert-load dump: a JSON file of snapshots, each with the loads of its window by physical expert and a map."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.formats.containers import text_files
from eplb_gap.problem.formats.containers.json_rows import count_table
from eplb_gap.problem.formats.containers.limits import check_elements
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.physical import logical_counts
from eplb_gap.problem.formats.loads.recording import Progress, Recording, left_out_note

TABLES = ("window_expert_load", "physical_to_logical_map")
SHAPE_KEYS = ("num_moe_layers", "num_physical_experts", "num_logical_experts")


def read(path: Path, _progress: Progress | None, left_out: Collection[int] = ()) -> Recording:
    """Read all snapshots; the tokens of a snapshot go to the logical experts by the map in that snapshot.

    Where the map changes between snapshots the provenance says so: whether a snapshot taken while experts move holds the map
    before or after that is up to the vLLM version that wrote it.

    Raises
    ------
    InputError
        If a key is missing, tables and maps do not belong together, or the steps of snapshots do not ascend.
    """
    document = text_files.parse_json(path)
    where = f"file {path}"
    snapshots = document.get("snapshots") if isinstance(document, dict) else None
    if not isinstance(snapshots, list) or not snapshots:
        raise InputError(f"{where} has no list of snapshots under the key 'snapshots'")
    window_size = _positive(document.get("window_size", 1), f"{where}: window_size")
    numbers, rows, maps = [], [], []
    layers: list[int] = []
    for index, snapshot in enumerate(snapshots):
        inside = f"{where}: snapshots[{index}]"
        loads, table = (count_table(_key(snapshot, key, inside), f"{inside}[{key!r}]", left_out) for key in TABLES)
        layers = layers or list(range(len(snapshot[TABLES[0]])))
        rows.append(logical_counts(loads[None], table, inside)[0])
        maps.append(table)
        if rows[-1].shape != rows[0].shape:
            raise InputError(f"{inside} has {rows[-1].shape} layers and experts; {rows[0].shape}, as the first, is needed")
        check_elements((len(snapshots), *rows[0].shape), where)
        numbers.append(_number(_key(snapshot, "step", inside), f"{inside}['step']"))
        if index and numbers[-1] <= numbers[-2]:
            raise InputError(f"{inside} is of step {numbers[-1]} after step {numbers[-2]}; ascending steps are needed")
    for key, found in zip(SHAPE_KEYS, (len(layers), maps[0].shape[1], rows[0].shape[1]), strict=True):
        if key in document and document[key] != found:
            raise InputError(f"{where}: {key} is {shown(document[key])}; the snapshots have {found}")
    changes = sum(not np.array_equal(old, new) for old, new in pairwise(maps))
    notes: dict[str, Any] = {
        "recorded_steps": [numbers[0], numbers[-1]],
        "maps": f"each snapshot's own; the map changed {changes} times between snapshots",
    }
    if any(new - old < window_size for old, new in pairwise(numbers)):
        notes["overlap"] = f"some snapshots are less than their {window_size} steps apart: they share tokens"
    if left_out:
        notes |= left_out_note(layers, left_out)
    kept = [layer for layer in layers if layer not in left_out]
    return Recording(np.stack(rows), kept, row_steps=window_size, notes=notes)


def _key(snapshot: Any, key: str, where: str) -> Any:
    if not isinstance(snapshot, dict) or key not in snapshot:
        raise InputError(f"{where} has no key {key!r} but {shown(snapshot)}")
    return snapshot[key]


def _number(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise InputError(f"{where} is {shown(value)}; a step number from 0 on is needed")
    return value


def _positive(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 31:
        raise InputError(f"{where} is {shown(value)}; a positive number of steps is needed")
    return value


FORMAT = LoadFormat(
    "vllm-snapshots", "vLLM expert load dump: JSON with the key snapshots", read, keys=("snapshots",), read_without=read
)
