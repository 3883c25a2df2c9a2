"""A map whose GPUs hold unequal numbers of experts: what some systems can serve and a placement can't say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.loads import as_loads

EMPTY = -1


class GpuLists:
    """Experts of every GPU of all layers.

    Parameters
    ----------
    experts : array_like of int [layers, gpus, most]
        Logical experts of every GPU, padded with -1 behind them.
    num_experts : int
        Logical experts per layer.

    Raises
    ------
    InputError
        If the array does not have three axes or is not integral.
    PlacementError
        Naming the layer and the GPU of an expert that does not exist or stands behind padding, or the expert without replica.
    """

    def __init__(self, experts: Any, num_experts: int) -> None:
        array = np.asarray(experts)
        if array.ndim != 3 or not array.size or array.dtype.kind not in "iu":
            raise InputError(f"experts is {array.dtype} of shape {array.shape}; integers with 3 non-empty axes are needed")
        self.experts = np.ascontiguousarray(array, dtype=np.int64)
        self.num_experts = num_experts
        self._check()

    @classmethod
    def from_lists(cls, layers: Sequence[Sequence[Sequence[int]]], num_experts: int) -> GpuLists:
        """Build a map from the experts of every GPU, one list per layer and GPU; every layer needs as many GPUs."""
        most = max((len(gpu) for layer in layers for gpu in layer), default=0)
        if len({len(layer) for layer in layers}) > 1:
            raise InputError("layers have unequal numbers of GPUs; every layer is spread over the same GPUs")
        return cls([[[*gpu, *[EMPTY] * (most - len(gpu))] for gpu in layer] for layer in layers], num_experts)

    @property
    def num_layers(self) -> int:
        """Layers of the map."""
        return int(self.experts.shape[0])

    @property
    def num_gpus(self) -> int:
        """GPUs of every layer."""
        return int(self.experts.shape[1])

    def sizes(self) -> np.ndarray:
        """Return how many experts every GPU holds, int64 [layers, gpus]."""
        return np.asarray((self.experts != EMPTY).sum(axis=2))

    def describe(self) -> str:
        """Return in words how uneven the map is, as ``"GPUs hold 8 to 10 experts"``."""
        fewest, most = int(self.sizes().min()), int(self.sizes().max())
        return f"GPUs hold {fewest} to {most} experts" if fewest < most else f"GPUs hold {most} experts each"

    def counts(self) -> np.ndarray:
        """Return the replicas of every expert, int64 [layers, experts]."""
        held = [layer[layer != EMPTY] for layer in self.experts]
        return np.array([np.bincount(experts, minlength=self.num_experts) for experts in held])

    def duplicates(self) -> np.ndarray:
        """Return the replicas that share a GPU with an earlier replica of their expert, int64 [layers]."""
        on_gpu = np.sort(self.experts, axis=2)
        same = (on_gpu[:, :, 1:] == on_gpu[:, :, :-1]) & (on_gpu[:, :, 1:] != EMPTY)
        return np.asarray(same.sum(axis=(1, 2)))

    def gpu_loads(self, loads: Any) -> np.ndarray:
        """Return the load of every GPU, float64 [layers, gpus] in tokens.

        Parameters
        ----------
        loads : array_like of int [layers, experts]
            An expert's load is split evenly over its replicas.

        Raises
        ------
        InputError
            If the loads are not those of this map's layers and experts.
        """
        sizes = self._checked(loads) / self.counts()
        return np.stack([_per_gpu(size, layer) for size, layer in zip(sizes, self.experts, strict=True)])

    def makespans(self, loads: Any) -> list[Fraction]:
        """Return the exact largest GPU load of every layer; arguments and errors as of :meth:`gpu_loads`."""
        layers = zip(self._checked(loads), self.counts(), self.experts, strict=True)
        return [_makespan(layer_loads, counts, experts) for layer_loads, counts, experts in layers]

    def _checked(self, loads: Any) -> np.ndarray:
        checked = as_loads(loads, "loads", 2)
        expected = (self.num_layers, self.num_experts)
        if checked.shape != expected:
            raise InputError(f"loads has shape {checked.shape}; that of the map, {expected} [layers, experts], is needed")
        return checked

    def _check(self) -> None:
        wrong = np.argwhere((self.experts < EMPTY) | (self.experts >= self.num_experts))
        if wrong.size:
            layer, gpu, place = (int(i) for i in wrong[0])
            raise PlacementError(
                f"layer {layer}, GPU {gpu}: expert {self.experts[layer, gpu, place]} does not exist; "
                f"experts are 0 to {self.num_experts - 1}"
            )
        behind = np.argwhere((self.experts[:, :, :-1] == EMPTY) & (self.experts[:, :, 1:] != EMPTY))
        if behind.size:
            layer, gpu, place = (int(i) for i in behind[0])
            raise PlacementError(
                f"layer {layer}, GPU {gpu}: expert {self.experts[layer, gpu, place + 1]} stands behind padding; "
                "-1 is needed behind all experts"
            )
        missing = np.argwhere(self.counts() == 0)
        if missing.size:
            layer, expert = (int(i) for i in missing[0])
            raise PlacementError(f"layer {layer}: expert {expert} has no replica; every expert needs at least one")


def _per_gpu(sizes: np.ndarray, experts: np.ndarray) -> np.ndarray:
    with_padding = np.append(sizes, sizes[:1] * 0)  # padding is -1: the last entry, without load
    return np.asarray(with_padding[experts].sum(axis=1))


def _makespan(loads: np.ndarray, counts: np.ndarray, experts: np.ndarray) -> Fraction:
    scale = math.lcm(*{int(count) for count in counts})
    return Fraction(int(_per_gpu(loads.astype(object) * scale // counts, experts).max()), scale)
