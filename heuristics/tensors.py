"""Tensors at the edge: what serving systems hand over, checked, and the three tensors that they want back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement


def as_weight(value: Any, name: str, axes: str) -> np.ndarray:
    """Check load statistics and return them on the host.

    Parameters
    ----------
    value : Tensor or array_like
        Real numbers of any type, on any device.
    name : str
        Name of the argument, for messages.
    axes : str
        What its axes are, as in "layers, experts".

    Returns
    -------
    ndarray
        float64 for floating-point numbers, int64 otherwise.

    Raises
    ------
    InputError
        If the number of axes is another, one is empty, or an entry is complex, not finite or negative.
    """
    array = torch.as_tensor(value).detach().to("cpu")
    if array.ndim != axes.count(",") + 1 or not array.numel() or array.is_complex():
        raise InputError(f"{name} is {array.dtype} of shape {tuple(array.shape)}; real numbers [{axes}] are needed")
    array = array.to(torch.float64 if array.is_floating_point() else torch.int64)
    for bad, needed in ((~torch.isfinite(array), "finite"), (array < 0, "non-negative")):
        if bad.any():
            where = bad.nonzero()[0].tolist()
            raise InputError(f"{name}{where} is {array[tuple(where)].item()}; loads must be {needed}")
    return np.asarray(array.numpy())


def as_tensors(placement: Placement) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a map as DeepSeek's ``rebalance_experts`` does.

    Returns
    -------
    phy2log : Tensor
        Logical expert of every slot, int64 [layers, slots].
    log2phy : Tensor
        Slots of every expert by replica rank, int64 [layers, experts, max count], padded with -1.
    logcnt : Tensor
        Replicas of every expert, int64 [layers, experts].
    """
    from eplb_gap.heuristics.tables import log2phy_and_counts  # imports numba

    table, counts = log2phy_and_counts(placement)
    return torch.from_numpy(placement.phy2log), torch.from_numpy(table), torch.from_numpy(counts)
