"""EPLB policy for vLLM: the planner of this project in place of the default one, which answers wherever ours fails.

vLLM finds :func:`register` as an entry point of the group ``vllm.general_plugins`` and calls it in every process, also where
EPLB is off. It raises nothing, and imports nothing heavy unless a variable ``EPLB_GAP_...`` is set. vLLM's registry
has one key that its configuration accepts, "default": the policy behind it is replaced, so that ``--enable-eplb`` suffices. Three
generations of the policy interface are known, told apart by the abstract class of the installed vLLM (:func:`policy_for`); the
third is that of a branch, in no release so far. What happens in a call: :mod:`eplb_gap.heuristics.plugins.calls`.

The map in use keeps every layer that the new one does not improve, and GPUs, nodes and slots of the others are renamed so that
the fewest replicas move (:mod:`eplb_gap.heuristics.moves.relabel`); the logger "eplb_gap" says how many at level INFO. After a
scale-up the map in use has -1 in the new slots, or in older versions another shape, with which nothing is compared. While vLLM
measures its memory it asks for a map without loads, and does not adopt it: there the planner is warmed up, before any traffic.
Where 0.33 scales it plans on the loads of the last reshuffle, none if that had none, and adopts the answer. So whatever is
answered without loads is legal, and the map in use wherever that is.

*Ranks.* vLLM sums the loads over all ranks (``all_reduce``), then every rank plans for itself, in the main thread or in that of
asynchronous rebalancing, and weights are sent as each rank's own map says: nobody compares the maps, and two different ones would
corrupt weights without a word. Versions with an EPLB group (``get_eplb_group``) let all ranks compare theirs before they are
used, with one ``all_reduce`` of 16 bytes at a place that all of them reach: where one differs or has failed, all take vLLM's own
answer, a function of the call alone. So a rank stays in the registry even where its settings are bad; the plug-in must be
installed on all nodes or on none. Older versions have no group that is free at that time. A rank that joins finds every other
one planning anew, as all of them forget with the deployment. Ray hands variables on to other machines where newer versions are
told so by ``VLLM_RAY_EXTRA_ENV_VAR_PREFIXES_TO_COPY=EPLB_GAP_``.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from eplb_gap.heuristics.plugins.agreement import same_everywhere
from eplb_gap.heuristics.plugins.announcing import say_kept, say_settings
from eplb_gap.heuristics.plugins.guard import COMPLAINTS
from eplb_gap.heuristics.plugins.variables import warn_of_unknown

if TYPE_CHECKING:  # these import numpy, torch and numba
    from eplb_gap.heuristics.plugins.calls import Call
    from eplb_gap.problem.placement import Placement

HOST = "vllm"
KEY = "default"
SUPPORTED = "0.15.1 to 0.33.0"
"""Versions that the tests of hosts drive; what lies outside may work."""
LOG = logging.getLogger("eplb_gap")
T = TypeVar("T")


class TriplePolicy:
    """First generation: a class method that returns the three tensors of DeepSeek's ``rebalance_experts``."""

    own: ClassVar[Any] = None
    """The policy that vLLM had in its registry."""

    @classmethod
    def rebalance_experts(
        cls,
        weight: Any,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: Any = None,
    ) -> Any:
        """Plan replicas and their slots for every layer.

        Parameters
        ----------
        weight : Tensor [layers, experts]
            Loads, finite and non-negative, of any type, on any device.
        num_replicas : int
            Physical experts S.
        num_groups, num_nodes, num_ranks : int
            Hierarchical where the groups divide over the nodes, otherwise global.
        old_global_expert_indices : Tensor of int [layers, slots], optional
            The map in use. One of another shape, as after a change of the number of ranks, is not compared with.

        Returns
        -------
        tuple of Tensor
            ``phy2log``, ``log2phy`` and ``logcnt``, int64 on the device of ``weight``; see
            :func:`eplb_gap.heuristics.tensors.as_tensors`.
        """
        given = (weight, num_replicas, num_groups, num_nodes, num_ranks, old_global_expert_indices)

        def ours(placement: Placement) -> Any:
            from eplb_gap.heuristics.tensors import as_tensors

            return tuple(tensor.to(weight.device) for tensor in as_tensors(placement))

        return _answer(lambda: _read_call(*given), ours, lambda: cls.own.rebalance_experts(*given), lambda triple: triple[0])


class MapPolicy:
    """Second generation: the same class method, which returns the map alone."""

    own: ClassVar[Any] = None
    """The policy that vLLM had in its registry."""

    @classmethod
    def rebalance_experts(
        cls,
        weight: Any,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: Any = None,
    ) -> Any:
        """Plan as :meth:`TriplePolicy.rebalance_experts` and return ``phy2log``, int64 [layers, num_replicas] on the CPU."""
        given = (weight, num_replicas, num_groups, num_nodes, num_ranks, old_global_expert_indices)
        return _answer(lambda: _read_call(*given), _as_map, lambda: cls.own.rebalance_experts(*given), lambda table: table)


class PlanningPolicy:
    """Third generation: an instance that plans on a history of loads, with a state per model that only commits may change.

    The state is that of vLLM's own policy, which answers where this one fails: this one's depends on the context, and on what a
    controller remembers by itself.
    """

    own: ClassVar[Any] = None
    """The policy that vLLM had in its registry."""

    def __init__(self) -> None:
        self._own = type(self).own()

    def create_state(self, num_moe_layers: int) -> Any:
        """Return the state of vLLM's own policy."""
        return self._own.create_state(num_moe_layers)

    def plan_rebalance(self, context: Any, policy_state: Any = None) -> Any:
        """Plan replicas and their slots for every layer.

        Parameters
        ----------
        context : object
            With ``load_window_cpu`` [samples, layers, experts], of which the sum is planned on, ``physical_to_logical_map_cpu``
            [layers, slots], ``topology.num_groups``, ``.num_nodes`` and ``.num_ranks``, and ``num_replicas``.
        policy_state : object, optional
            For vLLM's own policy.

        Returns
        -------
        EplbPlan
            vLLM's; its ``physical_to_logical_map`` is int64 [layers, num_replicas] on the CPU.
        """

        def read() -> Call:
            shape = context.topology
            numbers = (context.num_replicas, shape.num_groups, shape.num_nodes, shape.num_ranks)
            return _read_call(
                context.load_window_cpu, *numbers, context.physical_to_logical_map_cpu, axes="samples, layers, experts"
            )

        def ours(placement: Placement) -> Any:
            from vllm.distributed.eplb.policy import EplbPlan

            return EplbPlan(_as_map(placement))

        own = lambda: self._own.plan_rebalance(context, policy_state)  # noqa: E731
        return _answer(read, ours, own, lambda plan: plan.physical_to_logical_map)

    rebalance_experts = plan_rebalance  # its name in some versions

    def on_layer_committed(self, policy_state: Any, plan: Any, layer_idx: int) -> None:
        """Tell vLLM's own policy, whose state it is."""
        self._own.on_layer_committed(policy_state, plan, layer_idx)


def register() -> None:
    """Put the policy behind the key "default" of vLLM's registry, or say in one line of the log why not; raise nothing.

    ``vllm.distributed.eplb.policy`` is tried, and nothing else: it must have ``EPLB_POLICIES`` and ``AbstractEplbPolicy``. With
    bad settings the policy is put there all the same, and lets vLLM's own answer every call. A vLLM without that module is a
    warning only to those who set a variable of this plug-in.
    """
    _log_as_vllm_does()
    warn_of_unknown()
    try:
        policies, policy = _found()
    except Exception as error:
        say_kept("vLLM", HOST, error, SUPPORTED)
        return
    if not issubclass(policies[KEY], (TriplePolicy, MapPolicy, PlanningPolicy)):
        policy.own = policies[KEY]
        policies[KEY] = policy
    say_settings(HOST, "vLLM's own EPLB policy answers every call")


def policy_for(abstract: Any) -> type[TriplePolicy | MapPolicy | PlanningPolicy]:
    """Return the policy class that fits vLLM's abstract one.

    Parameters
    ----------
    abstract : type
        With ``plan_rebalance`` or ``create_state`` it is of the third generation; otherwise the return annotation of
        ``rebalance_experts``, a tuple or a Tensor, tells the first from the second.

    Raises
    ------
    TypeError
        If it is none of them.
    """
    if hasattr(abstract, "plan_rebalance") or hasattr(abstract, "create_state"):
        return PlanningPolicy
    rebalance = getattr(abstract, "rebalance_experts", None)
    returned = str(inspect.signature(rebalance).return_annotation) if callable(rebalance) else "no rebalance_experts"
    if "tuple" in returned.lower():
        return TriplePolicy
    if "Tensor" in returned:
        return MapPolicy
    raise TypeError(f"its AbstractEplbPolicy returns {returned}, which is neither a tuple, nor a Tensor, nor a plan")


def _log_as_vllm_does() -> None:
    """Send our lines where vLLM's go, at its level, unless somebody has said where they go: by default INFO is dropped."""
    theirs = logging.getLogger("vllm")
    if not (LOG.handlers or logging.getLogger().handlers) and theirs.handlers:
        for handler in theirs.handlers:
            LOG.addHandler(handler)
        LOG.setLevel(theirs.level)


def _found() -> tuple[dict[str, Any], Any]:
    """Return vLLM's registry and the class of ours that fits it."""
    from vllm.distributed.eplb.policy import EPLB_POLICIES, AbstractEplbPolicy

    if KEY not in EPLB_POLICIES:
        raise KeyError(f"its EPLB_POLICIES have no {KEY!r} but {', '.join(map(str, EPLB_POLICIES))}")
    return EPLB_POLICIES, policy_for(AbstractEplbPolicy)


def _answer(read: Callable[[], Call], ours: Callable[[Placement], T], own: Callable[[], T], table: Callable[[T], Any]) -> T:
    """Answer a call, also where what plans cannot even be imported."""
    try:
        from eplb_gap.heuristics.plugins.calls import answer
    except Exception as error:
        COMPLAINTS.say(f"{HOST}'s own policy answers", error)
        _ranks_agree(None)  # the other ranks wait for this one's word
        return own()
    return answer(HOST, read, ours, own, table, _ranks_agree)


def _read_call(
    weight: Any,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_ranks: int,
    old: Any,
    axes: str = "layers, experts",
) -> Call:
    import torch

    from eplb_gap.heuristics.plugins.calls import Call
    from eplb_gap.heuristics.tensors import as_weight
    from eplb_gap.problem.deployment import Deployment
    from eplb_gap.problem.errors import InputError
    from eplb_gap.problem.placement import Placement

    loads = as_weight(weight, "weight", axes)
    if not loads.any():
        _warm_up_once()
    layers, experts = loads.shape[-2:]
    deployment = Deployment(experts, num_replicas, num_ranks, num_nodes=num_nodes, num_groups=num_groups)
    previous = None
    if old is not None:
        table = torch.as_tensor(old).detach().to("cpu")
        if table.is_floating_point() or table.is_complex() or table.dtype == torch.bool:
            raise InputError(f"the map in use is {table.dtype}; integers [layers, slots] are needed")
        if tuple(table.shape) == (layers, num_replicas):
            previous = Placement(table.numpy(), experts)
    return Call(loads, deployment, previous)


@functools.cache
def _warm_up_once() -> None:
    from eplb_gap.heuristics.plugins.calls import warm_up

    warm_up()


def _as_map(placement: Placement) -> Any:
    import torch

    return torch.from_numpy(placement.phy2log)


def _ranks_agree(placement: Placement | None) -> bool:
    """Return whether all ranks of vLLM's EPLB group have the same map; True where they cannot be asked."""
    try:
        import torch
        from vllm.distributed.parallel_state import get_eplb_group

        group = get_eplb_group().cpu_group
        if group is None or torch.distributed.get_world_size(group) == 1:
            return True
        return same_everywhere(placement, group)
    except (ImportError, AssertionError, AttributeError, ValueError):  # no such group in this version, or it is not in use
        return True
    except Exception as error:
        COMPLAINTS.say("ranks cannot be asked whether they agree; vllm's own policy answers", error)
        return False
