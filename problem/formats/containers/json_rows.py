"""Lists of counts out of a JSON document as arrays; a list is judged before NumPy sees it, which would take strings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError, shown

MAX_EXACT = 1 << 53  # larger floating-point numbers do not tell which integer was meant


def count_table(value: Any, where: str, left_out: Collection[int] = ()) -> np.ndarray:
    """Return a list of equally long lists of integers, int64 [layers, experts]; rows that are left out are not looked at.

    Raises
    ------
    InputError
        If it is ragged or empty, or an entry is no integer of int64.
    """
    if not isinstance(value, list) or not value:
        raise InputError(f"{where} is {shown(value)}; a list of one list per layer is needed")
    rows = {layer: _count_row(row, f"{where}[{layer}]") for layer, row in enumerate(value) if layer not in left_out}
    if not rows:
        raise InputError(f"{where} has no layers but those to be left out; at least one is needed")
    first = next(iter(rows))
    for layer, row in rows.items():
        if row.size != rows[first].size:
            raise InputError(f"{where}[{layer}] has {row.size} entries; {rows[first].size}, as many as layer {first}, are needed")
    return np.stack(list(rows.values()))


def _count_row(row: Any, where: str) -> np.ndarray:
    if not isinstance(row, list) or not row:
        raise InputError(f"{where} is {shown(row)}; a list of integers that is not empty is needed")
    if set(map(type, row)) != {int}:
        row = [_integral(entry, f"{where}[{position}]") for position, entry in enumerate(row)]
    try:
        return np.array(row, dtype=np.int64)
    except OverflowError:
        raise InputError(f"{where} holds {shown(max(row, key=abs))}; integers of 64 bits are needed") from None


def _integral(entry: Any, where: str) -> int:
    if type(entry) is int:
        return entry
    if type(entry) is float and entry.is_integer() and abs(entry) <= MAX_EXACT:
        return int(entry)
    raise InputError(f"{where} is {shown(entry)}; an integer is needed")
