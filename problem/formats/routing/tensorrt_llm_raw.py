"""TensorRT-LLM's raw expert statistics: the experts that every token selected, a safetensors file for each rank."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.loads import tensorrt_llm_statistics as statistics
from eplb_gap.problem.formats.loads.rank_files import check_ranks, folder_of, matching
from eplb_gap.problem.formats.routing.assembled import assembled
from eplb_gap.problem.formats.routing.routing_format import RoutingFormat
from eplb_gap.problem.formats.routing.rows import Piece, Routed
from eplb_gap.problem.routing.trace import RoutingTrace

NAME = re.compile(r"rank(?P<rank>\d{1,6})_raw\.safetensors")


def read(path: Path, experts: int | None) -> RoutingTrace:
    """Read all ranks' selections, by iteration, then by rank; ``path`` is the folder of the statistics or a file in it.

    Raises
    ------
    InputError
        If a file, a rank or a step's layer is missing, or the layers of a step differ in tokens or top-k.
    """
    folder = folder_of(path)
    told = statistics.num_experts(folder / statistics.META)
    found = sorted((int(match["rank"]), file) for match, file in matching(folder, NAME))
    if not found:
        raise InputError(f"folder {folder} has no file rank0_raw.safetensors")
    check_ranks([rank for rank, _ in found], f"folder {folder}")
    with ExitStack() as stack:
        opened = [(file, stack.enter_context(statistics.opened(file))) for _, file in found]
        keys = [statistics.steps_and_layers(tensors, file) for file, tensors in opened]
        layers = sorted({layer for _, layer in keys[0]})
        order: list[tuple[int, int]] = []
        shapes: list[tuple[int, ...]] = []
        for step, rank in sorted({(step, rank) for rank, pairs in enumerate(keys) for step, _ in pairs}):
            order.append((step, rank))
            shapes.append(_shape(opened[rank], keys[rank], step, layers))

        def pieces() -> Iterator[Piece]:
            for (step, rank), shape in zip(order, shapes, strict=True):
                if shape[0]:
                    chosen = [opened[rank][1].get_tensor(keys[rank][step, layer]) for layer in layers]
                    yield f"{opened[rank][0].name}, iteration {step}", 0, np.stack(chosen, axis=1)

        lengths = [shape[0] for shape in shapes]
        columns = {
            "step": np.repeat([step for step, _ in order], lengths),
            "source": np.repeat([rank for _, rank in order], lengths),
        }
        for shape in shapes:
            if shape[2] != shapes[0][2]:
                raise InputError(f"folder {folder} has tokens of {shapes[0][2]} and of {shape[2]} experts; one number is needed")
        whole: list[tuple[int, ...]] = [(sum(lengths), len(layers), shapes[0][2])]
        notes: dict[str, Any] = {"ranks": len(found), "iterations": [order[0][0], order[-1][0]]}
        routed = Routed(f"folder {folder}", whole, pieces(), told, columns, layers, notes=notes)
        return assembled(routed, FORMAT.name, path.name, experts)


def _shape(opened: tuple[Path, Any], keys: dict[tuple[int, int], str], step: int, layers: list[int]) -> tuple[int, ...]:
    """Return the shape of one rank's choices in a step, all layers together."""
    file, tensors = opened
    first: tuple[int, ...] | None = None
    here = sorted(layer for number, layer in keys if number == step)
    if here != layers:
        odd = sorted(set(here).symmetric_difference(layers))[0]
        has = "has a" if odd in here else "has no"
        raise InputError(f"file {file} {has} key '{step}_{odd}'; every step of every rank needs the same layers")
    for layer in layers:
        view = tensors.get_slice(keys[step, layer])
        shape, kind = tuple(view.get_shape()), str(view.get_dtype())
        if len(shape) != 2 or kind not in statistics.INTEGERS or shape != (first or shape):
            needed = "integers [tokens, top-k]" if first is None else f"integers of shape {first}, as of its first layer,"
            raise InputError(f"file {file}: key '{step}_{layer}' is {kind} of shape {shape}; {needed} are needed")
        first = shape
    assert first is not None
    return first[0], len(layers), first[1]


FORMAT = RoutingFormat(
    "tensorrt-llm-raw",
    "TensorRT-LLM raw expert statistics: folder of meta_info.json and rank*_raw.safetensors",
    read,
    recognise=lambda start: NAME.fullmatch(start.path.name) is not None,
    names=NAME,
)
