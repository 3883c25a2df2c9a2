"""Parquet tables of routing: a row for each token and layer, with the experts it chose there in columns of their own."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from eplb_gap.problem.errors import InputError, listed
from eplb_gap.problem.formats.loads.load_format import FileStart
from eplb_gap.problem.formats.loads.tables.parquet_table import MAGIC, read_columns
from eplb_gap.problem.formats.routing.assembled import assembled
from eplb_gap.problem.formats.routing.routing_format import RoutingFormat
from eplb_gap.problem.formats.routing.rows import MAX_EXPERTS, PADDING, Routed
from eplb_gap.problem.routing.trace import COLUMNS, RoutingTrace

EXPERT = re.compile(r"expert_(0|[1-9]\d{0,4})")
NEEDED = "layer, token and expert_0, expert_1 and so on"
MAX_SCHEMA = 1 << 24


def read(path: Path, experts: int | None) -> RoutingTrace:
    """Read a table with the columns ``layer``, ``token``, ``expert_0`` to ``expert_k``, and ``source``, ``request``, ``step``.

    Rows may come in any order: tokens are in that of their numbers.

    Raises
    ------
    InputError
        If a column is missing, a token lacks a layer or has it twice, or differs in a column from layer to layer.
    """
    where = f"file {path}"
    taken: list[str] = []

    def choose(names: list[str]) -> list[str]:
        numbers = sorted(int(match[1]) for name in names if (match := EXPERT.fullmatch(name)))
        if not {"layer", "token"} <= set(names) or not numbers or numbers != list(range(len(numbers))):
            raise InputError(f"{where} has the columns {listed(names)}; {NEEDED} are needed")
        taken[:] = ["layer", "token", *(name for name in COLUMNS if name in names), *(f"expert_{i}" for i in numbers)]
        return taken

    found = read_columns(path, choose)
    table = dict(zip(taken, found, strict=True))
    layer, token = table["layer"], table["token"]
    for name in ("layer", "token"):
        if table[name].size and table[name].min() < 0:
            raise InputError(f"{where}: {name} is {table[name].min()}; numbers from 0 on are needed")
    ids, tokens = np.unique(layer), np.unique(token)
    order = np.lexsort((layer, token))
    _check_grid(layer[order], token[order], ids, tokens, where)
    columns = {}
    for name in COLUMNS:
        if name in table:
            columns[name] = _of_tokens(table[name][order].reshape(tokens.size, ids.size), tokens, name, where)
    topk = [name for name in taken if EXPERT.fullmatch(name)]
    chosen = np.empty((tokens.size, ids.size, len(topk)), dtype=np.int32)
    for place, name in enumerate(topk):
        column = table[name]
        if column.size and not PADDING <= column.min() <= column.max() < MAX_EXPERTS:
            row = int(np.argmax((column < PADDING) | (column >= MAX_EXPERTS)))
            raise InputError(
                f"{where}: {name} of token {token[row]}, layer {layer[row]} is {column[row]}; 0 to {MAX_EXPERTS - 1} are needed"
            )
        chosen[:, :, place] = column[order].reshape(tokens.size, ids.size)
    routed = Routed(where, [chosen.shape], [("the table", 0, chosen)], None, columns, ids.tolist())
    return assembled(routed, FORMAT.name, path.name, experts)


def _check_grid(layer: np.ndarray, token: np.ndarray, ids: np.ndarray, tokens: np.ndarray, where: str) -> None:
    """Refuse rows, in the order of tokens and layers, unless every token has every layer once."""
    if not layer.size:
        raise InputError(f"{where} has no row; {NEEDED} of every token are needed")
    twice = (token[1:] == token[:-1]) & (layer[1:] == layer[:-1])
    if twice.any():
        row = int(np.argmax(twice))
        raise InputError(f"{where} has token {token[row]}, layer {layer[row]} twice; once is needed")
    if layer.size != ids.size * tokens.size:
        held = np.unique(token, return_counts=True)[1]
        short = int(np.argmax(held < ids.size))
        lacks = np.setdiff1d(ids, layer[token == tokens[short]])[0]
        raise InputError(f"{where} has no row of token {tokens[short]}, layer {lacks}, which others have; all layers are needed")


def _of_tokens(column: np.ndarray, tokens: np.ndarray, name: str, where: str) -> np.ndarray:
    odd = (column != column[:, :1]).any(axis=1)
    if odd.any():
        token = int(np.argmax(odd))
        raise InputError(f"{where}: {name} of token {tokens[token]} differs from layer to layer; one is needed")
    return column[:, 0].copy()


def is_routing(start: FileStart) -> bool:
    """Return whether a file is Parquet whose schema, at its end, names a column ``expert_0``."""
    if not start.content.startswith(MAGIC):
        return False
    try:
        with start.path.open("rb") as file:
            file.seek(-8, 2)
            length = int.from_bytes(file.read(4), "little")
            file.seek(-8 - min(length, file.tell() - 4, MAX_SCHEMA), 2)
            return b"expert_0" in file.read(min(length, MAX_SCHEMA))
    except (OSError, ValueError):
        return False  # the reader says what is wrong


FORMAT = RoutingFormat("parquet-routing", f"Parquet with the columns {NEEDED}", read, recognise=is_routing)
