"""From the choices that a file holds to a trace: padding and layers without experts left out and said, nothing else changed."""

from __future__ import annotations

from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.routing.rows import MAX_EXPERTS, NO_TOKEN, Routed
from eplb_gap.problem.routing.trace import RoutingTrace

GUESSED = "as many as the largest number that was chosen says"


def assembled(routed: Routed, format: str, name: str, experts: int | None = None) -> RoutingTrace:
    """Return the trace of what a file holds; beside it no more than a piece of the file is in memory.

    Parameters
    ----------
    routed : Routed
    format, name : str
        Of the file, for the provenance.
    experts : int, optional
        Logical experts of a layer. Without it, and where the file does not tell, the largest number that was chosen says it,
        and the provenance that this is so.

    Raises
    ------
    InputError
        If the file tells another number, no token is left, a token lacks a layer that others have, or as of
        :meth:`.rows.Routed.checked`.
    """
    if None not in (experts, routed.num_experts) and experts != routed.num_experts:
        raise InputError(f"experts is {experts}; {routed.where} has {routed.num_experts}")
    told = experts if routed.num_experts is None else routed.num_experts
    tokens, layers, choices = routed.shape()
    held = np.empty((tokens, layers, choices), dtype=np.uint8 if told is None or told <= 1 << 8 else np.uint16)
    kept = np.ones(tokens, dtype=bool)
    blank, seen, nonzero = np.zeros(layers, dtype=np.int64), 0, np.zeros(layers, dtype=bool)
    missing: dict[int, str] = {}
    count = largest = 0
    for inside, first, chosen, there in routed.checked(told or MAX_EXPERTS):
        has = there.any(axis=1)
        kept[seen : seen + len(chosen)] = has
        seen += len(chosen)
        for layer in np.flatnonzero((~there[has]).any(axis=0)).tolist():
            place = np.flatnonzero(has & ~there[:, layer])[0]
            missing.setdefault(layer, f"{inside}: token {first + int(place)}")
        blank += (~there[has]).sum(axis=0)
        chosen = chosen[has]
        if not len(chosen):
            continue
        nonzero |= chosen.any(axis=(0, 2))
        largest = max(largest, int(chosen.max()))
        if told is None and largest == MAX_EXPERTS - 1:
            raise InputError(
                f"{routed.where}: {inside} has {largest}, which is an expert or, in 16 bits without a sign, padding; the "
                f"number of experts is needed where there are {MAX_EXPERTS}, and -1 for padding"
            )
        if largest > np.iinfo(held.dtype).max:
            held = held.astype(np.uint16)
        held[count : count + len(chosen)] = np.maximum(chosen, 0)
        count += len(chosen)
    if not count:
        raise InputError(f"{routed.where} {NO_TOKEN}")
    dense = blank == count
    if choices == 1 and routed.blank_zeros:  # there a zero can be the choice of expert 0, but in a layer of nothing else
        dense |= ~nonzero
    if dense.all():
        raise InputError(f"{routed.where}: no layer has routed experts; [tokens, layers, top-k] is needed")
    for layer in np.flatnonzero((blank > 0) & ~dense).tolist():
        raise InputError(
            f"{routed.where}: {missing[layer]} has no experts in layer {layer}, where other tokens have; all layers of a token, "
            "or none, are needed"
        )
    held = held[:count] if not dense.any() else held[:count, ~dense]
    held.flags.writeable = False
    ids = routed.layer_ids or list(range(layers))
    notes, notices = dict(routed.notes), list(routed.notes.get("notices", ()))
    if count < tokens:
        notices.append(f"{tokens - count} tokens without routing (padding, or not captured) left out")
    if told is None:
        notices.append(f"the file does not say how many experts there are: {largest + 1}, {GUESSED}")
    notes |= {
        "format": format,
        "file": name,
        "layer_ids": [layer for layer, gone in zip(ids, dense, strict=True) if not gone],
        "num_model_layers": layers if routed.layer_ids is None else None,
        "dropped_layers": [layer for layer, gone in zip(ids, dense, strict=True) if gone],
        "tokens_without_routing": tokens - count,
        "experts": GUESSED if told is None else "told by the caller" if routed.num_experts is None else "told by the file",
        "notices": notices,
    }
    columns = _columns(routed, kept)
    try:
        return RoutingTrace(held, told or largest + 1, **columns, provenance=notes)
    except InputError as error:
        raise InputError(f"{routed.where}: {error}") from None


def _columns(routed: Routed, kept: np.ndarray) -> dict[str, Any]:
    """Return what is told of every token that is kept; the request, where there are several."""
    columns = dict(routed.columns)
    if len(routed.shapes) > 1:
        columns.setdefault("request", np.repeat(np.arange(len(routed.shapes)), [shape[0] for shape in routed.shapes]))
    return {name: column[kept] for name, column in columns.items()}
