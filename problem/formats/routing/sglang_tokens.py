"""SGLang's expert distribution recorder in mode ``per_token``: the physical experts of every token, a file for each rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.containers.torch_arrays import tensor_array
from eplb_gap.problem.formats.loads import sglang_recorder
from eplb_gap.problem.formats.loads.load_format import FileStart
from eplb_gap.problem.formats.loads.physical import checked_map
from eplb_gap.problem.formats.routing.assembled import assembled
from eplb_gap.problem.formats.routing.routing_format import RoutingFormat
from eplb_gap.problem.formats.routing.rows import PADDING, Piece, Routed
from eplb_gap.problem.routing.trace import RoutingTrace

KEY = "topk_ids_of_layer"
SAME = "all ranks recorded the same tokens, which are read once, without a source"


def read(path: Path, experts: int | None) -> RoutingTrace:
    """Read the dump of all ranks that a file, or a folder with one dump, stands for: by forward pass, then by rank.

    Physical experts are given back to their logical ones by the map in the file; columns of -1, of the eight that the recorder
    has, that no token of the dump uses are none of the model's choices.

    Raises
    ------
    InputError
        If the dump is of another mode, a rank or pass is missing, a physical expert is in no slot, or there are several dumps.
    """
    found = sglang_recorder.recordings(path)
    if len(found) > 1:
        raise InputError(f"folder {path} has {len(found)} dumps; one is needed, such as {found[-1].name}")
    ranks = sglang_recorder.ranks_of(found[0])
    table, held = checked_map(ranks[0].table, ranks[0].where)
    parts: dict[tuple[int, int], np.ndarray] = {}
    for rank, dump in enumerate(ranks):
        if not np.array_equal(dump.table, table):
            raise InputError(f"{dump.where}: {sglang_recorder.MAP} is not that of rank 0; ranks of one dump have the same map")
        for index, record in enumerate(dump.records):
            name = f"{dump.where}: {sglang_recorder.RECORDS}[{index}]"
            step = int(record["forward_pass_id"])
            if (step, rank) in parts:
                raise InputError(f"{name} is forward pass {step} again; every pass is needed once")
            parts[step, rank] = _logical(record, table, name)
    steps = sorted({step for step, _ in parts})
    for step, rank in ((step, rank) for step in steps for rank in range(len(ranks))):
        if (step, rank) not in parts:
            raise InputError(f"{ranks[rank].where} has no forward pass {step}; all ranks must have the same passes")
    width = max(int(np.flatnonzero((part != PADDING).any(axis=(0, 1))).max(initial=0)) + 1 for part in parts.values())
    notes: dict[str, Any] = {
        "ranks": len(ranks),
        "forward_passes": [steps[0], steps[-1]],
        "map": "the last one, taken for all passes",
    }
    if len(ranks) > 1 and all(np.array_equal(parts[step, 0], parts[step, rank]) for step, rank in parts):
        parts = {(step, rank): part for (step, rank), part in parts.items() if rank == 0}
        notes["notices"] = [SAME]
    order = sorted(parts)
    lengths = [len(parts[place]) for place in order]
    columns = {"step": np.repeat([step for step, _ in order], lengths)}
    if "notices" not in notes:
        columns["source"] = np.repeat([rank for _, rank in order], lengths)
    pieces: list[Piece] = [(f"forward pass {step}, rank {rank}", 0, parts[step, rank][:, :, :width]) for step, rank in order]
    shape = (sum(lengths), table.shape[0], width)
    routed = Routed(f"file {found[0]}", [shape], pieces, held, columns, notes=notes)
    return assembled(routed, FORMAT.name, path.name, experts)


def _logical(record: dict[str, Any], table: np.ndarray, where: str) -> np.ndarray:
    """Return the logical experts of a record, [tokens, layers, top-k], -1 where there is none."""
    if KEY not in record:
        raise InputError(f"{where} has no key {KEY!r}; a dump of mode per_token is needed")
    if tuple(getattr(record[KEY], "shape", ()))[1:2] == (0,):  # a rank that had nothing to do in that pass
        return np.empty((0, len(table), 1), dtype=np.int32)
    chosen = tensor_array(record[KEY], f"{where}[{KEY!r}]", 3)
    if chosen.dtype.kind not in "iu":
        raise InputError(f"{where}[{KEY!r}] is {chosen.dtype}; integers are needed")
    if len(chosen) != len(table):
        raise InputError(f"{where}[{KEY!r}] has {len(chosen)} layers; {len(table)}, as the map, are needed")
    if chosen.min() < PADDING or chosen.max() >= table.shape[1]:
        wrong = np.argwhere((chosen < PADDING) | (chosen >= table.shape[1]))[0].tolist()
        raise InputError(
            f"{where}[{KEY!r}]: token {wrong[1]}, layer {wrong[0]} chose slot {chosen[tuple(wrong)]}; "
            f"0 to {table.shape[1] - 1} are needed"
        )
    logical = np.take_along_axis(table[:, None], np.maximum(chosen, 0).astype(np.int64), axis=2)
    return np.asarray(np.where(chosen == PADDING, PADDING, logical).transpose(1, 0, 2)).astype(np.int32)


def is_per_token(start: FileStart) -> bool:
    """Return whether a file is one rank's dump of records that have the key."""
    content = start.torch if start.is_torch else None
    records = content.get(sglang_recorder.RECORDS) if isinstance(content, dict) else None
    return isinstance(records, list) and bool(records) and isinstance(records[0], dict) and KEY in records[0]


FORMAT = RoutingFormat(
    "sglang-tokens",
    f"SGLang expert distribution recorder, .pt of per_token ({KEY}), a file for each rank",
    read,
    recognise=is_per_token,
    names=sglang_recorder.NAME,
)
