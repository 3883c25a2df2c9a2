"""Whether the ranks of a server come to the same map; those that do not would exchange the wrong weights."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imports numpy; a host imports this module in processes that will never plan
    from eplb_gap.problem.placement import Placement


def same_everywhere(placement: Placement | None, group: Any, device: Any = "cpu") -> bool:
    """Return whether all ranks of a group have the same map, or none has one; each must ask.

    Parameters
    ----------
    placement : Placement or None
        This rank's; None where it has none.
    group : ProcessGroup or None
        Of ``torch.distributed``; None for the default one.
    device : device, default "cpu"
        That the group communicates on.

    Raises
    ------
    RuntimeError
        Of ``torch.distributed``.
    """
    return told_everywhere(None if placement is None else placement.phy2log.tobytes(), group, device)


def told_everywhere(told: bytes | None, group: Any, device: Any = "cpu") -> bool:
    """Return whether all ranks of a group tell the same, or none tells anything; as :func:`same_everywhere` of a map."""
    import torch

    word = 0 if told is None else int.from_bytes(hashlib.sha256(told).digest()[:7], "big") + 1
    words = torch.tensor([word, -word], dtype=torch.int64, device=device)
    torch.distributed.all_reduce(words, op=torch.distributed.ReduceOp.MAX, group=group)
    most, least = words.tolist()
    return bool(most == -least)
