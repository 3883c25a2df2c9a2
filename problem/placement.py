"""A placement: which logical expert every slot of every layer holds, and the views that serving systems want of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError, PlacementError, next_divisors, such_as


class Placement:
    """Physical-to-logical map of all layers.

    Parameters
    ----------
    phy2log : array_like of int [layers, slots]
        Logical expert of every slot. Legality is judged by :func:`eplb_gap.problem.verify`, not here.
    num_experts : int
        Logical experts per layer.
    ranks : array_like of int [layers, slots], optional
        Number of the replica within its expert, from 0; by default in the order of the slots. -1 marks filler, a slot that
        holds no replica whatever its expert: those of dead GPUs (:mod:`eplb_gap.problem.dead_ranks`).

    Raises
    ------
    InputError
        If an array does not have two axes, is not integral, or the shapes differ.

    Examples
    --------
    >>> from eplb_gap import Placement
    >>> placement = Placement([[0, 1, 2, 0]], 3)  # on two GPUs: experts 0 and 1, experts 2 and 0
    >>> placement.counts().tolist()
    [[2, 1, 1]]
    >>> placement.log2phy()[0, 0].tolist()  # the slots of expert 0
    [0, 3]
    """

    def __init__(self, phy2log: Any, num_experts: int, ranks: Any = None) -> None:
        self.phy2log = _as_map(phy2log, "phy2log", 2)
        self.num_experts = num_experts
        self.ranks = self._ranks_by_slot() if ranks is None else _as_map(ranks, "ranks", 2)
        if self.ranks.shape != self.phy2log.shape:
            raise InputError(f"ranks has shape {self.ranks.shape}; that of phy2log, {self.phy2log.shape}, is needed")

    @classmethod
    def from_tensors(cls, phy2log: Any, log2phy: Any, logcnt: Any) -> Placement:
        """Build a placement from the three tensors of ``rebalance_experts`` and check that they agree.

        Parameters
        ----------
        phy2log : array_like of int [layers, slots]
        log2phy : array_like of int [layers, experts, max count]
            Slots of every expert by replica rank, padded with -1.
        logcnt : array_like of int [layers, experts]

        Raises
        ------
        PlacementError
            Naming the first layer and expert where the tensors contradict each other: a -1 inside the valid prefix, a slot
            beyond it, a slot out of range or listed twice, a slot that holds another expert, a wrong count.
        """
        physical, logical, counts = _as_map(phy2log, "phy2log", 2), _as_map(log2phy, "log2phy", 3), _as_map(logcnt, "logcnt", 2)
        layers, slots = physical.shape
        if logical.shape[:2] != counts.shape or counts.shape[0] != layers:
            raise InputError(
                f"shapes phy2log {physical.shape}, log2phy {logical.shape}, logcnt {counts.shape} do not belong together"
            )
        ranks = np.full_like(physical, -1)
        for layer, expert in np.ndindex(counts.shape):
            where = f"layer {layer}, expert {expert}"
            count = int(counts[layer, expert])
            row = logical[layer, expert]
            if not 0 <= count <= row.size:
                raise PlacementError(f"{where}: logcnt is {count}; log2phy lists up to {row.size} replicas")
            if (row[:count] < 0).any():
                raise PlacementError(f"{where}: log2phy holds -1 inside its valid prefix of {count} replicas")
            if (row[count:] != -1).any():
                raise PlacementError(f"{where}: log2phy lists more than the {count} replicas of logcnt; -1 is needed behind them")
            for rank, slot in enumerate(row[:count]):
                if slot >= slots:
                    raise PlacementError(f"{where}: log2phy names slot {slot}; slots are 0 to {slots - 1}")
                if physical[layer, slot] != expert:
                    raise PlacementError(
                        f"{where}: log2phy names slot {slot}, which phy2log gives to expert {physical[layer, slot]}"
                    )
                if ranks[layer, slot] != -1:
                    raise PlacementError(f"{where}: log2phy names slot {slot} twice")
                ranks[layer, slot] = rank
        missing = np.argwhere(ranks == -1)
        if missing.size:
            layer, slot = (int(i) for i in missing[0])
            raise PlacementError(f"layer {layer}, slot {slot}: expert {physical[layer, slot]}'s log2phy does not list it")
        return cls(physical, counts.shape[1], ranks)

    @property
    def num_layers(self) -> int:
        """Layers of the map."""
        return int(self.phy2log.shape[0])

    @property
    def num_slots(self) -> int:
        """Slots per layer."""
        return int(self.phy2log.shape[1])

    def counts(self) -> np.ndarray:
        """Return the replicas of every expert, int64 [layers, experts]; filler is none."""
        numbers = np.arange(self.num_layers)[:, None] * self.num_experts + self.phy2log
        held = numbers.ravel() if self.ranks.min() >= 0 else numbers[self.ranks >= 0]
        return np.bincount(held, minlength=self.num_layers * self.num_experts).reshape(-1, self.num_experts)

    def log2phy(self) -> np.ndarray:
        """Return the slots of every expert by replica rank, int64 [layers, experts, max count], padded with -1."""
        table = np.full((self.num_layers, self.num_experts, int(self.counts().max())), -1, dtype=np.int64)
        layers, slots = np.nonzero(self.ranks >= 0)
        table[layers, self.phy2log[layers, slots], self.ranks[layers, slots]] = slots
        return table

    def by_gpu(self, num_gpus: int) -> np.ndarray:
        """Return the experts of every GPU, int64 [layers, gpus, slots per GPU]."""
        if num_gpus < 1 or self.num_slots % num_gpus:
            near = such_as(("", next_divisors(num_gpus, self.num_slots)))
            raise InputError(f"num_gpus is {num_gpus}; a divisor of the {self.num_slots} slots is needed{near}")
        return self.phy2log.reshape(self.num_layers, num_gpus, -1)

    def _ranks_by_slot(self) -> np.ndarray:
        order = np.argsort(self.phy2log, axis=1, kind="stable")
        held = np.take_along_axis(self.phy2log, order, axis=1)
        position = np.broadcast_to(np.arange(self.num_slots), held.shape)
        starts = np.maximum.accumulate(np.where(np.diff(held, axis=1, prepend=-1) != 0, position, 0), axis=1)
        ranks = np.empty_like(self.phy2log)
        np.put_along_axis(ranks, order, position - starts, axis=1)
        return ranks


def _as_map(value: Any, name: str, ndim: int) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:
        raise InputError(f"{name} is ragged; a rectangular array is needed") from None
    if array.ndim != ndim or not array.size or array.dtype.kind not in "iu":
        raise InputError(f"{name} is {array.dtype} of shape {array.shape}; integers with {ndim} non-empty axes are needed")
    return np.ascontiguousarray(array, dtype=np.int64)
