"""Lists of counts out of a JSON document as arrays; a list is judged before NumPy sees it, which would take strings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
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
    rows = {layer: count_row(row, f"{where}[{layer}]") for layer, row in enumerate(value) if layer not in left_out}
    if not rows:
        raise InputError(f"{where} has no layers but those to be left out; at least one is needed")
    said = odd_layer({layer: row.size for layer, row in rows.items()}, set(left_out) - set(range(len(value))))
    if said is not None:
        raise InputError(f"{where}: {said}")
    return np.stack(list(rows.values()))


def odd_layer(experts: Mapping[int, int], unknown: Collection[int] = ()) -> str | None:
    """Return what to say of layers that differ in their number of experts from most others; None where none does.

    Parameters
    ----------
    experts : mapping of int to int
        Layer -> its number of experts.
    unknown : collection of int, optional
        Layers that were to be left out and are not there: perhaps the odd one was meant.
    """
    (most, common), *others = Counter(experts.values()).most_common(2) or [(0, 0)]
    if not others:
        return None
    hint = "all need as many; leave_out_layers (--leave-out-layers) leaves layers out"
    if unknown:
        hint += f", and names layer {min(unknown)}, which is not there"
    if common <= len(experts) / 2:  # no number is that of most layers
        (one, first), (other, second) = _differing(experts)
        return f"layer {one} has {first} experts and layer {other} has {second}; {hint}"
    odd = [layer for layer, found in experts.items() if found != most]
    more = f" (and {len(odd) - 1} more layers another number)" if len(odd) > 1 else ""
    return f"layer {odd[0]} has {experts[odd[0]]} experts{more}, {common} layers have {most}; {hint}"


def _differing(experts: Mapping[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    first = next(iter(experts.items()))
    return first, next(pair for pair in experts.items() if pair[1] != first[1])


def count_row(row: Any, where: str) -> np.ndarray:
    """Return a list of integers that is not empty, int64; integral floating-point numbers are taken.

    Parameters
    ----------
    row : object
    where : str
        With which messages begin; the position of an entry follows it.
    """
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
    what = ", a fraction" if type(entry) is float and not entry.is_integer() else ""
    raise InputError(f"{where} is {shown(entry)}{what}; an integer is needed")
