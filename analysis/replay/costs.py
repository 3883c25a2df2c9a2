"""What moving replicas costs in time, from a small TOML profile; without one only moves are counted."""

from __future__ import annotations

import math
import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from eplb_gap.problem import files
from eplb_gap.problem.errors import InputError

MAX_BYTES = 1 << 16
POSITIVE = ("bandwidth", "tokens_per_second")


@dataclass(frozen=True)
class Costs:
    """Costs of moving, all of one system.

    Parameters
    ----------
    expert_bytes : float
        Weights of one expert of one layer, bytes.
    bandwidth : float
        What a GPU can receive, bytes per second.
    overlap : float, default 0.0
        Part of the transfer that is hidden behind serving, 0 to 1.
    stall : float, default 0.0
        Seconds that serving stands still at every re-plan, whatever moves.
    stall_per_layer : float, default 0.0
        The same for every layer in which a replica moves.
    tokens_per_second : float, optional
        Tokens that the experts of one GPU work off in a second, a token counted for every expert that it is sent to. Turns
        waiting into tokens, so that it can be compared with imbalance; without it no such share is reported.

    Raises
    ------
    InputError
        If a number is out of range.
    """

    expert_bytes: float
    bandwidth: float
    overlap: float = 0.0
    stall: float = 0.0
    stall_per_layer: float = 0.0
    tokens_per_second: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            found = getattr(self, field.name)
            if found is None and field.name == "tokens_per_second":
                continue
            number = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
            most = 1.0 if field.name == "overlap" else math.inf
            if not number or not 0 <= found <= most or (field.name in POSITIVE and not found):
                allowed = "a number from 0 to 1" if field.name == "overlap" else "a finite, non-negative number"
                allowed = "a finite, positive number" if field.name in POSITIVE else allowed
                raise InputError(f"{field.name} is {found!r}; {allowed} is needed")

    def seconds(self, arrivals: np.ndarray) -> float:
        """Return how long serving waits for a re-plan.

        Parameters
        ----------
        arrivals : ndarray
            Replicas that every GPU receives, int64 [layers, gpus].
        """
        if not arrivals.any():
            return 0.0
        transfer = float(arrivals.sum(axis=0).max()) * self.expert_bytes / self.bandwidth
        return self.stall + self.stall_per_layer * int(arrivals.any(axis=1).sum()) + (1 - self.overlap) * transfer


def read_costs(path: str | os.PathLike[str]) -> Costs:
    """Read a profile: one table ``[costs]`` with the keys of :class:`Costs`.

    Raises
    ------
    InputError
        If the file cannot be read, is no TOML, or a key is missing, unknown or out of range.
    """
    try:
        document = tomllib.loads(files.read_text(Path(path), MAX_BYTES))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no TOML ({error})") from None
    names = [field.name for field in fields(Costs)]
    table = document.get("costs")
    if set(document) != {"costs"} or not isinstance(table, dict):
        raise InputError(f"{path}: exactly one table [costs] is needed")
    unknown = sorted(set(table) - set(names))
    if unknown:
        raise InputError(f"{path}: costs.{unknown[0]} is not a key; the keys are {', '.join(names)}")
    missing = [name for name in ("expert_bytes", "bandwidth") if name not in table]
    if missing:
        raise InputError(f"{path}: costs.{missing[0]} is missing")
    try:
        return Costs(**table)
    except InputError as error:
        raise InputError(f"{path}: costs.{error}") from None
