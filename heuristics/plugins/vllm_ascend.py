"""EPLB policy for vLLM-Ascend: the planner of this project in place of its own policies, which answer wherever ours fails.

vLLM-Ascend makes a rank's policy with ``PolicyFactory.generate_policy(eplb_policy_type)`` in the process that holds the model and
runs it in a process beside that one. :func:`register`, an entry point of the group ``vllm.general_plugins``, which vLLM loads in
every process before it makes a worker, replaces that method: the policy of any type is handed out inside a :class:`Policy`. The
type that a server was started with, 2 unless it says otherwise, decides whose answer counts where ours fails; with 3 loads come
step by step. A server without ``DYNAMIC_EPLB`` or ``EXPERT_MAP_RECORD`` in its environment, one of which vLLM-Ascend demands for
dynamic EPLB, is not touched, and nothing heavy is imported. What happens in a call: :mod:`eplb_gap.heuristics.plugins.calls`.

The host takes the table of an answer, whatever its flag says, but puts a layer back where an expert has no slot, a device holds
an expert twice, or an expert that stays on its device changes its slot. So duplicates on a device are forbidden to the planner,
and what stays on a device stays in its slot. Every other slot is one transfer, from a device that held the expert.

With ``expert_map_record_path`` the host writes the maps that its policy answers and moves no weight, but goes on with them as if
they were in use: what slots served is then told of other experts, and neither a plan nor a record would be true. There its own
policy stays.

*Ranks.* Every rank plans for itself, from loads that were gathered from all, in a process that cannot reach the others. Before it
starts they compare their settings and the version of this project, with one ``all_reduce`` of 16 bytes in the group of the expert
parallel ranks: where one differs or has failed, all keep vLLM-Ascend's own policy. So the plug-in must be installed on all nodes
or on none.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from eplb_gap.heuristics.plugins.agreement import told_everywhere
from eplb_gap.heuristics.plugins.guard import COMPLAINTS
from eplb_gap.heuristics.plugins.variables import warn_of_unknown

if TYPE_CHECKING:  # these import numpy, torch and numba
    import numpy as np
    import torch

    from eplb_gap.heuristics.plugins.calls import Call
    from eplb_gap.problem.placement import Placement

HOST = "vllm-ascend"
SUPPORTED = "0.23.0 and 0.26.0rc1"
"""Versions that the tests of hosts drive; what lies between them may work."""
SWITCHES = {"DYNAMIC_EPLB": ("true", "1"), "EXPERT_MAP_RECORD": ("true",)}
"""Variables of which vLLM-Ascend demands one for dynamic EPLB, and the values that count."""


class Policy:
    """The policy of a rank; it is handed to another process with what it holds.

    Parameters
    ----------
    own : object
        The host's policy of the type that the server was started with.
    rank : int, optional
        Of this process, for the record: the one that plans is in no group, and what started the server may have told all of a
        machine the same.
    """

    def __init__(self, own: Any, rank: int | None = None) -> None:
        self.own, self.rank = own, rank

    def rebalance_experts(self, current_expert_table: Any, expert_workload: Any, *more: Any, **named: Any) -> Any:
        """Plan replicas and their slots for every layer.

        Parameters
        ----------
        current_expert_table : Tensor of int [layers, ranks, slots]
            Expert in every slot.
        expert_workload : Tensor of int [layers, ranks, slots] or [steps, layers, ranks, slots]
            Tokens that every slot served since the last plan; those of an expert's replicas are added up.
        *more, **named
            Unknown; with any of these the host's own policy answers.

        Returns
        -------
        changed : int
            1 if any layer is to change, else 0.
        priority : ndarray
            int64 [layers]: the layers, first those whose largest device load becomes the smallest part of what it was.
        table : Tensor
            int64 [layers, ranks, slots], on the CPU; a layer that gains too little is as it was.
        """
        given = (current_expert_table, expert_workload, *more)
        read, own = cache(partial(_read_call, *given, **named)), partial(self.own.rebalance_experts, *given, **named)
        try:
            from eplb_gap.heuristics.plugins.calls import answer
        except Exception as error:
            COMPLAINTS.say(f"{HOST}'s own policy answers", error)
            return own()
        return answer(HOST, read, lambda found: _answer(found, read(), current_expert_table.shape), own, _flat, rank=self.rank)


def register() -> None:
    """Hand our policy out in place of vLLM-Ascend's, where that is installed and its dynamic EPLB is on; raise nothing."""
    try:
        if _is_switched_on() and importlib.util.find_spec("vllm_ascend") is not None:
            warn_of_unknown()
            _replace()
    except Exception as error:
        COMPLAINTS.say(f"{HOST} keeps its own EPLB; the plug-in was tested with {SUPPORTED}", error)


def _is_switched_on() -> bool:
    return any(os.environ.get(name, "").lower() in values for name, values in SWITCHES.items())


def _replace() -> None:
    from vllm_ascend.eplb.core.policy.policy_factory import PolicyFactory

    make = PolicyFactory.generate_policy
    if getattr(make, "hands_ours_out", False):
        return
    if list(inspect.signature(make).parameters) != ["policy_type"]:
        raise TypeError(f"its PolicyFactory.generate_policy takes {inspect.signature(make)}, not (policy_type)")

    def generate_policy(policy_type: int) -> Any:
        own = make(policy_type)
        return Policy(own, _rank()) if _ranks_agree(_ready(own)) else own

    generate_policy.hands_ours_out = True  # type: ignore[attr-defined]
    PolicyFactory.generate_policy = staticmethod(generate_policy)


def _rank() -> int | None:
    import torch

    return torch.distributed.get_rank() if torch.distributed.is_initialized() else None


def _ready(own: Any) -> str | None:
    """Warm up and return what must be the same on all ranks; None where this one cannot plan."""
    try:
        taken = list(inspect.signature(own.rebalance_experts).parameters)
        if taken[:2] != ["current_expert_table", "expert_workload"]:
            raise TypeError(f"its {type(own).__name__}.rebalance_experts takes {', '.join(taken)}; tested was {SUPPORTED}")
        if _only_writes_maps():
            raise ValueError("expert_map_record_path is set, with which loads are told of tables that are not in use")
        from importlib.metadata import version

        from eplb_gap.heuristics.plugins.calls import prepare
        from eplb_gap.heuristics.plugins.settings import settings

        prepare(HOST)
        return f"{version('eplb-gap')} {settings().summary.rpartition(' ')[2]}"
    except Exception as error:
        COMPLAINTS.say(f"{HOST}'s own policy answers every call", error)
        return None


def _only_writes_maps() -> bool:
    try:
        from vllm_ascend.ascend_config import get_ascend_config

        return get_ascend_config().eplb_config.expert_map_record_path is not None
    except (ImportError, AttributeError, RuntimeError):  # a version without that setting, or without any yet
        return False


def _ranks_agree(told: str | None) -> bool:
    """Return whether all ranks of the expert parallel group tell the same, and none has failed; every rank must ask."""
    try:
        from vllm.distributed import get_ep_group

        agree = told_everywhere(None if told is None else told.encode(), get_ep_group().cpu_group)
    except Exception as error:
        COMPLAINTS.say(f"ranks cannot be asked for their settings; {HOST}'s own policy answers every call", error)
        return False
    if told is not None and not agree:
        COMPLAINTS.say(f"{HOST}'s own policy answers every call", "ranks differ in their EPLB_GAP_ settings or in eplb-gap")
    return agree and told is not None


def _read_call(current_expert_table: Any, expert_workload: Any) -> Call:
    """Return the tokens of logical experts and the map in use."""
    import numpy as np

    from eplb_gap.heuristics.plugins.calls import Call
    from eplb_gap.heuristics.tensors import as_weight
    from eplb_gap.problem.deployment import Deployment
    from eplb_gap.problem.errors import InputError
    from eplb_gap.problem.placement import Placement

    table = _read_table(current_expert_table)
    layers, ranks, slots = table.shape
    steps = getattr(expert_workload, "ndim", 3) == 4
    tokens = as_weight(expert_workload, "expert_workload", "steps, layers, ranks, slots" if steps else "layers, ranks, slots")
    if tokens.shape[-3:] != table.shape:
        raise InputError(f"expert_workload has shape {tokens.shape}; that of the table, {table.shape}, is needed at its end")
    experts = int(table.max()) + 1
    if experts > ranks * slots:
        raise InputError(f"current_expert_table names expert {experts - 1}; it has {ranks * slots} slots in a layer")
    names = (np.arange(layers)[:, None] * experts + table.reshape(layers, -1)).ravel()
    held = np.bincount(names, minlength=layers * experts)
    if not held.all():
        layer, expert = divmod(int(np.argmin(held)), experts)
        raise InputError(f"current_expert_table[{layer}] has no slot with expert {expert}; every layer needs every expert")
    order, begin = np.argsort(names, kind="stable"), np.cumsum(held) - held
    history = np.empty((*tokens.shape[:-3], layers, experts), dtype=tokens.dtype)
    # Step by step: the slots of a thousand steps of a large model are a copy that need not be made.
    for of_slots, of_experts in zip(tokens.reshape(-1, names.size), history.reshape(-1, held.size), strict=True):
        np.add.reduceat(of_slots[order], begin, out=of_experts)
    deployment = Deployment(experts, ranks * slots, ranks, duplicates="forbidden")
    return Call(history, deployment, Placement(table.reshape(layers, -1), experts))


def _read_table(value: Any) -> np.ndarray:
    import torch

    from eplb_gap.problem.errors import InputError

    table = torch.as_tensor(value).detach().to("cpu")
    if table.ndim != 3 or not table.numel() or table.is_floating_point() or table.is_complex() or table.dtype == torch.bool:
        raise InputError(
            f"current_expert_table is {table.dtype} of shape {tuple(table.shape)}; integers [layers, ranks, slots] are needed"
        )
    if table.min() < 0:
        where = (table < 0).nonzero()[0].tolist()
        raise InputError(f"current_expert_table{where} is {table[tuple(where)].item()}; an expert is needed in every slot")
    return table.to(torch.int64).numpy()  # type: ignore[no-any-return]


def _answer(found: Placement, call: Call, shape: tuple[int, ...]) -> tuple[int, np.ndarray, torch.Tensor]:
    """Return a map as the host's policies do, with what stays on a device in its slot."""
    import numpy as np
    import torch

    from eplb_gap.heuristics.moves.relabel import keep_slots
    from eplb_gap.problem.placement import Placement

    old = call.in_use.phy2log  # type: ignore[union-attr]
    new = keep_slots(found.phy2log, old, call.deployment)
    loads = call.history.reshape(-1, *call.history.shape[-2:]).sum(axis=0, dtype=np.float64)

    def largest(table: np.ndarray) -> np.ndarray:
        sizes = np.take_along_axis(loads / Placement(table, found.num_experts).counts(), table, axis=1)
        return np.asarray(sizes.reshape(shape).sum(axis=2).max(axis=1))

    before, after = largest(old), largest(new)
    part = np.divide(after, before, out=np.ones_like(after), where=before > 0.0)
    return int((new != old).any()), np.argsort(part, kind="stable"), torch.tensor(new.reshape(shape))


def _flat(answered: Any) -> torch.Tensor:
    """Return the map [layers, slots] of an answer, ours or the host's."""
    import torch

    return torch.as_tensor(answered[2]).flatten(1)
