"""EPLB algorithm for SGLang: the planner of this project in place of the built-in ones.

SGLang runs the entry points ``sglang.srt.plugins`` in every process, schedulers first among them, before anything else; so
:func:`register` is called wherever this package is installed beside it. It puts a :class:`Planner` in the place of
``rebalance_experts`` of ``sglang.srt.eplb.eplb_algorithms``, which SGLang looks up by that name in every rebalance, and at the
start where ``--init-expert-location`` holds loads. Which algorithm the server was started with decides only between the
hierarchical and the global policy; the rest comes from the environment: :mod:`eplb_gap.heuristics.plugins`.

What SGLang does not hand over it is asked for: the map in use, the ranks that are alive under the elastic algorithms, and at
which row its recorder's circular buffer begins, unless it is elastic. A row is a forward pass; one without a token, or never
filled, is left out.

Nothing of what plans is imported before the first call: SGLang imports this module in processes that will never plan.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from eplb_gap.heuristics.plugins.agreement import same_everywhere
from eplb_gap.heuristics.plugins.announcing import say_kept, say_settings
from eplb_gap.heuristics.plugins.guard import COMPLAINTS
from eplb_gap.heuristics.plugins.variables import warn_of_unknown

if TYPE_CHECKING:  # these import numpy, torch and numba
    import numpy as np
    import torch

    from eplb_gap.heuristics.plugins.calls import Call
    from eplb_gap.problem.deployment import Deployment
    from eplb_gap.problem.placement import Placement

HOST = "sglang"
SUPPORTED = "0.5.23"
"""Versions that the tests of hosts drive; what lies outside may work."""
ELASTIC = ("elasticity_aware", "elasticity_aware_hierarchical")
HIERARCHICAL = ("deepseek_hierarchical", "deepseek_vec_hierarchical", "elasticity_aware_hierarchical")
GLOBAL = ("deepseek", "deepseek_vec", "elasticity_aware")
FIRST_ROW = attrgetter("_accumulator._global_physical_count_of_buffered_step._curr_index")
"""Of SGLang's recorder: where its circular buffer is written next, which is where its oldest pass lies."""


def register() -> None:
    """Put a planner in the place of SGLang's ``rebalance_experts``, or say in one line of the log why not; raise nothing.

    With bad settings it is put there all the same, and lets SGLang's own function answer every call. A SGLang without that
    function is worth a warning only to those who set a variable of this plug-in.
    """
    warn_of_unknown()
    try:
        import sglang.srt.eplb.eplb_algorithms as algorithms

        own = algorithms.rebalance_experts
        if not callable(own):
            raise TypeError(f"rebalance_experts of its eplb_algorithms is {own!r}, which cannot be called")
        if not isinstance(own, Planner):
            algorithms.rebalance_experts = Planner(own)
    except Exception as error:
        say_kept("SGLang", HOST, error, SUPPORTED)
        return
    say_settings(HOST, "sglang's own policy answers every call")


class Planner:
    """Stands in the place of SGLang's ``rebalance_experts``.

    Parameters
    ----------
    own : callable
        SGLang's function, which answers where this one fails.
    """

    def __init__(self, own: Callable[..., Any]) -> None:
        functools.update_wrapper(self, own)
        self.own = own

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Plan replicas and their slots for every layer.

        Parameters
        ----------
        tokens_per_expert : Tensor [steps, layers, experts]
            Loads, finite and non-negative, of any type, on any device; all its steps are planned on, oldest first. Layers without
            experts have none.
        num_physical_experts, num_local_physical_experts : int
            Slots, and those of one GPU.
        num_groups : int or None
            None for a model without group-limited routing.
        num_nodes : int
        algorithm : EplbAlgorithm
            Hierarchical for :data:`HIERARCHICAL` if there are groups and they divide over the nodes, otherwise global. Where they
            do not, SGLang's own hierarchical functions fail: AssertionError, and TypeError for None.

        Returns
        -------
        tuple of Tensor
            ``phy2log``, ``log2phy`` and ``logcnt``, int64 on the CPU, which its callers copy to their device; see
            :func:`eplb_gap.heuristics.tensors.as_tensors`. Slots of dead ranks get expert 0, which nothing is routed to.
        """
        own = functools.partial(self.own, *given, **named)
        try:
            from eplb_gap.heuristics.plugins.calls import answer
        except Exception as error:
            COMPLAINTS.say(f"{HOST}'s own policy answers", error)
            _ranks_agree(None)  # the other ranks wait for this one's word
            return own()
        found = answer(HOST, lambda: _read_call(*given, **named), _as_triple, own, lambda triple: triple[0], _ranks_agree)
        warm_up_once()
        return found


@functools.cache
def warm_up_once() -> None:
    """Say the settings, and let what plans be compiled for the second call.

    SGLang gives no sign before the first, and plug-ins are loaded before its log is set up.
    """
    from eplb_gap.heuristics.plugins.calls import prepare
    from eplb_gap.problem.errors import InputError

    with suppress(InputError):  # of settings: every call says why it is not answered
        prepare(HOST)


def _read_call(
    tokens_per_expert: Any,
    num_physical_experts: int,
    num_local_physical_experts: int,
    num_groups: int | None,
    num_nodes: int,
    algorithm: Any,
) -> Call:
    import torch

    from eplb_gap.heuristics.plugins.calls import Call
    from eplb_gap.heuristics.tensors import as_weight
    from eplb_gap.problem.dead_ranks import with_dead, without_dead
    from eplb_gap.problem.errors import InputError
    from eplb_gap.problem.placement import Placement

    tokens = torch.as_tensor(tokens_per_expert).detach().to("cpu")
    history = as_weight(_oldest_first(tokens) if tokens.ndim == 3 else tokens, "tokens_per_expert", "steps, layers, experts")
    layers, experts = history.shape[1:]
    slots, local = num_physical_experts, num_local_physical_experts
    if not isinstance(local, int) or local < 1 or slots % local:
        raise InputError(
            f"num_local_physical_experts is {local!r}; a positive divisor of num_physical_experts = {slots} is needed"
        )
    deployment = _deployment(experts, slots, slots // local, num_groups, num_nodes, str(getattr(algorithm, "name", algorithm)))
    table = _map_in_use(layers, slots)
    if table is None:
        _refuse_cached_weights()
        return Call(history, deployment, None)
    ranks = None
    if str(getattr(algorithm, "name", algorithm)) in ELASTIC:
        ranks = _without_returned(table, history.sum(axis=(0, 2)) > 0, slots // local, experts)
    in_use = with_dead(without_dead(Placement(table, experts, ranks), deployment), deployment)
    return Call(history, deployment, _with_idle_layers(in_use, deployment, history))


def _oldest_first(tokens: torch.Tensor) -> torch.Tensor:
    """Return the passes that have a token, in the order in which they came; one without load where none has.

    In an elastic server, in that of the buffer: a rank that has come back writes into other rows than the others, which would
    make each rank's own order another one, and ranks that are not asked whether they agree must plan on the same history.
    """
    import torch

    begin: Any = 0
    if len(tokens) > 1 and not _is_elastic():
        try:
            from sglang.srt.eplb.expert_distribution import get_global_expert_distribution_recorder

            begin = FIRST_ROW(get_global_expert_distribution_recorder())
        except (ImportError, AttributeError):  # a buffer without bound, which is in order, or another version
            pass
    order = torch.arange(len(tokens)).roll(-begin if type(begin) is int else 0)
    used = order[tokens.flatten(1).any(dim=1)[order]]
    return tokens[used if len(used) else order[:1]]


def _deployment(experts: int, slots: int, num_gpus: int, num_groups: int | None, num_nodes: int, algorithm: str) -> Deployment:
    from eplb_gap.problem.deployment import Deployment
    from eplb_gap.problem.errors import InputError

    if algorithm not in (*HIERARCHICAL, *GLOBAL):
        raise InputError(f"algorithm is {algorithm!r}; one of {', '.join((*HIERARCHICAL, *GLOBAL))} is needed")
    alive = _alive(num_gpus) if algorithm in ELASTIC else [True] * num_gpus
    if not all(alive):
        return Deployment(experts, slots_per_gpu=[slots // num_gpus] * num_gpus, active=alive)
    if algorithm in HIERARCHICAL and num_groups is not None and num_groups % num_nodes == 0:
        return Deployment(experts, slots, num_gpus, num_nodes=num_nodes, num_groups=num_groups)
    return Deployment(experts, slots, num_gpus)


def _alive(num_gpus: int) -> list[bool]:
    """Return which ranks are alive; flags beyond the GPUs belong to ranks that may still join."""
    from sglang.srt.elastic_ep.elastic_ep import ElasticEPStateManager

    from eplb_gap.problem.errors import InputError

    state = ElasticEPStateManager.instance()
    if state is None or state.active_ranks is None:  # SGLang takes all to be healthy
        return [True] * num_gpus
    flags = state.active_ranks.tolist()
    if len(flags) < num_gpus:
        raise InputError(f"active_ranks has {len(flags)} entries; one for each of the {num_gpus} ranks is needed")
    return [bool(flag) for flag in flags[:num_gpus]]


def _map_in_use(layers: int, slots: int) -> np.ndarray | None:
    """Return the map that SGLang serves; None at its start, where it has another shape, or where a version doesn't say."""
    import numpy as np

    try:
        from sglang.srt.eplb.expert_location import get_global_expert_location_metadata

        metadata = get_global_expert_location_metadata()
        table = None if metadata is None else metadata.physical_to_logical_map_cpu
    except (ImportError, AttributeError):
        return None
    if table is None or tuple(table.shape) != (layers, slots):
        return None
    return np.asarray(table.clone().numpy())  # SGLang writes into its own


def _refuse_cached_weights() -> None:
    """Refuse the first map of a server whose weights another process lays out.

    The processes of SGLang's weight cache run no plug-ins: from the loads of ``--init-expert-location`` they make the map of
    SGLang's own algorithm, and nothing compares it with the server's before its weights are taken.
    """
    from eplb_gap.problem.errors import InputError

    try:
        from sglang.srt.runtime_context import get_model

        mode = get_model().weight_cache_mode
    except (ImportError, AttributeError):  # a version without it
        return
    if mode != "off":
        raise InputError(f"weight_cache_mode is {mode!r}, with which the first map must be that of SGLang's own algorithm")


def _without_returned(table: np.ndarray, loaded: np.ndarray, num_gpus: int, experts: int) -> np.ndarray:
    """Return the replica ranks of a map in which a GPU that has come back holds nothing yet.

    A rank that was lost keeps its filler until the next rebalance. A controller would take it for replicas of one expert: a legal
    map, to keep until a window is full. The map tells it, to the rank that is new as to the others.
    """
    import numpy as np

    from eplb_gap.problem.dead_ranks import FILLER
    from eplb_gap.problem.placement import Placement

    filler = (table.reshape(len(table), num_gpus, -1)[loaded] == FILLER).all(axis=(0, 2))
    return np.where(np.repeat(filler, table.shape[1] // num_gpus), -1, Placement(table, experts).ranks)


def _with_idle_layers(in_use: Placement, deployment: Deployment, history: np.ndarray) -> Placement:
    """Return a map in which layers without load are legal.

    SGLang lists layers without experts too, never changes their map, and keeps the trivial one, which is often not hierarchical.
    """
    import numpy as np

    from eplb_gap.heuristics.control.contiguous import contiguous_map
    from eplb_gap.problem.placement import Placement
    from eplb_gap.problem.validation import legal_layers

    idle = ~history.any(axis=(0, 2)) & ~legal_layers(in_use, deployment)
    if not idle.any():
        return in_use
    legal = contiguous_map(deployment, in_use.num_layers)
    phy2log = np.where(idle[:, None], legal.phy2log, in_use.phy2log)
    return Placement(phy2log, in_use.num_experts, np.where(idle[:, None], legal.ranks, in_use.ranks))


def _as_triple(placement: Placement) -> Any:
    """Return tensors that SGLang may keep and write into."""
    from eplb_gap.heuristics.tensors import as_tensors

    return tuple(tensor.clone() for tensor in as_tensors(placement))


def _is_elastic() -> bool:
    """Return whether ranks may be lost and join, by the option that SGLang was started with."""
    try:
        from sglang.srt.runtime_context import get_exec

        return bool(get_exec().moe.elastic_ep_backend)
    except (ImportError, AttributeError):  # another version
        return False


def _ranks_agree(placement: Placement | None) -> bool:
    """Return whether all ranks have the same map; True where they are not asked.

    They plan at the same moment, behind a sum of their counts over all of them. Ranks of an elastic server are not asked: one
    that is lost would be waited for, one that joins plans at its start while the others serve, and once the server was scaled
    rank 0 plans for all. The option tells, not the state of elastic ranks, which SGLang makes behind the first map.
    """
    try:
        import torch
        from sglang.srt.runtime_context import get_device

        group = torch.distributed
        if not (group.is_available() and group.is_initialized()) or _is_elastic():
            return True
        return group.get_world_size() == 1 or same_everywhere(placement, None, get_device().device)
    except (ImportError, AttributeError):  # another version
        return True
    except Exception as error:
        COMPLAINTS.say("ranks cannot be asked whether they agree; sglang's own policy answers", error)
        return False
