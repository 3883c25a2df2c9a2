"""Counts of physical experts as counts of logical experts."""

from __future__ import annotations

import numpy as np

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.loads import as_loads


def logical_counts(counts: np.ndarray, phy2log: np.ndarray, where: str) -> np.ndarray:
    """Sum the tokens of all replicas of an expert.

    Parameters
    ----------
    counts : ndarray of int [steps, layers, slots]
    phy2log : ndarray of int [layers, slots]
        Logical expert of every slot; every expert has a slot in every layer.
    where : str
        File and key, with which messages begin.

    Returns
    -------
    ndarray
        int64 [steps, layers, experts].

    Raises
    ------
    InputError
        If the shapes do not belong together or the map names no expert, or not all.
    """
    counts = as_loads(counts, f"{where}: counts", 3)
    table, experts = checked_map(phy2log, where)
    if table.shape != counts.shape[1:]:
        raise InputError(
            f"{where}: physical_to_logical_map has shape {table.shape}; that of the counts, {counts.shape[1:]}, is needed"
        )
    layers = table.shape[0]
    logical = np.zeros((counts.shape[0], layers * experts), dtype=np.int64)
    flat = (np.arange(layers)[:, None] * experts + table).ravel()
    for step, row in zip(logical, counts, strict=True):
        np.add.at(step, flat, row.ravel())
    return logical.reshape(-1, layers, experts)


def checked_map(phy2log: np.ndarray, where: str) -> tuple[np.ndarray, int]:
    """Return a map as int64 [layers, slots], and its experts.

    Raises
    ------
    InputError
        If it names no expert, or not all of them in every layer.
    """
    table = as_loads(phy2log, f"{where}: physical_to_logical_map", 2)
    experts = int(table.max()) + 1
    for layer, row in enumerate(table):
        found = np.unique(row).size
        if found != experts:
            raise InputError(
                f"{where}: physical_to_logical_map[{layer}] names {found} experts; each of 0 to {experts - 1} needs a slot"
            )
    return table, experts
