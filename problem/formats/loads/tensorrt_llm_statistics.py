"""TensorRT-LLM's expert statistics: ``meta_info.json`` and a safetensors file per rank with counts by step and layer."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem import files
from eplb_gap.problem.errors import InputError, reason, shown
from eplb_gap.problem.formats.containers.limits import check_elements
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.rank_files import check_ranks, folder_of, matching
from eplb_gap.problem.formats.loads.recording import Progress, Recording, add_counts, left_out_note

META = "meta_info.json"
MAX_META_BYTES = 1 << 20
NAME = re.compile(r"rank(?P<rank>\d{1,6})\.safetensors")  # neither rank0_raw nor cooccurrence_rank0
KEY = re.compile(r"(?P<step>\d{1,15})_(?P<layer>\d{1,5})")
INTEGERS = {"I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8"}


def read(path: Path, _progress: Progress | None, left_out: Collection[int] = ()) -> Recording:
    """Sum the counts of all ranks; ``path`` is the folder of the statistics or a file in it.

    Raises
    ------
    InputError
        If a file, a rank or the counts of a step and layer are missing, or are no integers of ``num_experts`` entries.
    """
    folder = folder_of(path)
    experts = num_experts(folder / META)
    found = sorted((int(match["rank"]), file) for match, file in matching(folder, NAME))
    if not found:
        raise InputError(f"folder {folder} has no file rank0.safetensors")
    check_ranks([rank for rank, _ in found], f"folder {folder}")
    total: np.ndarray | None = None
    notes: dict[str, Any] = {}
    grid: list[tuple[int, int]] = []
    for _, file in found:
        with opened(file) as tensors:
            keys = steps_and_layers(tensors, file)
            if left_out:
                notes |= left_out_note({layer for _, layer in keys}, left_out)
                keys = {pair: key for pair, key in keys.items() if pair[1] not in left_out}
            if total is None:
                grid = _grid(keys, file)
                check_elements((len(grid), 1, experts), f"file {file}")
                total = np.zeros((len(grid), experts), dtype=np.int64)
            odd = sorted(set(grid).symmetric_difference(keys))
            if odd:
                what = "has no" if odd[0] in grid else "has a"
                raise InputError(f"file {file} {what} key '{odd[0][0]}_{odd[0][1]}', unlike rank 0; all ranks need the same keys")
            for row, pair in enumerate(grid):
                _add(total[row], tensors, keys[pair], file)
    assert total is not None
    steps, layers = sorted({step for step, _ in grid}), sorted({layer for _, layer in grid})
    notes |= {"ranks": len(found), "iterations": [steps[0], steps[-1]]}
    return Recording(total.reshape(len(steps), len(layers), experts), layers, notes=notes)


def num_experts(path: Path) -> int:
    """Return what ``meta_info.json`` says."""
    meta = files.parse_json(path, MAX_META_BYTES)
    experts = meta.get("num_experts") if isinstance(meta, dict) else None
    if type(experts) is not int or not 1 <= experts <= 1 << 20:
        raise InputError(f"file {path}: num_experts is {shown(experts)}; a positive integer is needed")
    return experts


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file; whatever is wrong with it, also while tensors are read, is an InputError."""
    from safetensors import SafetensorError, safe_open

    files.size(path, files.MAX_ARRAY_BYTES)
    try:
        with safe_open(path, framework="numpy") as tensors:
            yield tensors
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"file {path} is truncated or no safetensors file ({reason(error)})") from None


def steps_and_layers(tensors: Any, path: Path) -> dict[tuple[int, int], str]:
    """Return the key of every step and layer."""
    found: dict[tuple[int, int], str] = {}
    for key in tensors.keys():  # noqa: SIM118 - no mapping
        match = KEY.fullmatch(key)
        if match is None:
            raise InputError(f"file {path} has a key {shown(key)}; keys are step_layer, such as '100_3'")
        pair = int(match["step"]), int(match["layer"])
        if pair in found:
            raise InputError(f"file {path} has the keys {found[pair]!r} and {key!r} for one step and layer")
        found[pair] = key
    if not found:
        raise InputError(f"file {path} holds no counts; keys such as '100_3' (step and layer) are needed")
    return found


def _grid(keys: dict[tuple[int, int], str], path: Path) -> list[tuple[int, int]]:
    """Return all pairs of a step and a layer in order, of which none may be missing."""
    steps, layers = sorted({step for step, _ in keys}), sorted({layer for _, layer in keys})
    if len(steps) * len(layers) != len(keys):
        step, layer = next((step, layer) for step in steps for layer in layers if (step, layer) not in keys)
        raise InputError(f"file {path} has no key '{step}_{layer}'; every step needs the same layers")
    return sorted(keys)


def _add(total: np.ndarray, tensors: Any, key: str, path: Path) -> None:
    view = tensors.get_slice(key)
    shape, kind = tuple(view.get_shape()), str(view.get_dtype())
    if shape != total.shape or kind not in INTEGERS:
        raise InputError(f"file {path}: key {key!r} is {kind} of shape {shape}; integers of shape {total.shape} are needed")
    add_counts(total, tensors.get_tensor(key), f"file {path}: key {key!r}")


FORMAT = LoadFormat(
    "tensorrt-llm",
    "TensorRT-LLM expert statistics: folder of meta_info.json and rank*.safetensors",
    read,
    folder=True,
    names=NAME,
    companions=(META,),
    recordings=lambda path: [folder_of(path)],
    read_without=read,
)
