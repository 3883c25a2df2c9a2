"""EPLB policy for vLLM: the planner of this project in place of the default one.

vLLM finds :func:`register` as an entry point of the group ``vllm.general_plugins`` and calls it in every process. Its registry
has one key that its configuration accepts, "default": the policy behind it is replaced, so that ``--enable-eplb`` suffices. Three
generations of the policy interface are in use; :func:`policy_for` tells them apart by the abstract class of the installed vLLM.
Nothing of vLLM is imported before it calls. Method, configuration and threshold, or a controller, come from the environment:
:mod:`eplb_gap.heuristics.plugins`.

The map in use keeps every layer that the new one does not improve, and GPUs, nodes and slots of the others are renamed so that
the fewest replicas move (:mod:`eplb_gap.heuristics.moves.relabel`); the logger "eplb_gap" says how many at level INFO.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch

from eplb_gap.heuristics.plugins import prepare, replan
from eplb_gap.heuristics.tensors import as_tensors, as_weight
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement

OLD_ARGUMENT = "old_global_expert_indices"


class TriplePolicy:
    """First generation: a class method that returns the three tensors of DeepSeek's ``rebalance_experts``."""

    @classmethod
    def rebalance_experts(
        cls,
        weight: Any,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: Any = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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
            ``phy2log``, ``log2phy`` and ``logcnt``, int64 on the CPU; see :func:`eplb_gap.heuristics.tensors.as_tensors`.

        Raises
        ------
        InputError
            If an argument or the environment is not what it must be.
        """
        loads = as_weight(weight, "weight", "layers, experts")
        return as_tensors(
            _placement(loads, num_replicas, num_groups, num_nodes, num_ranks, old_global_expert_indices, OLD_ARGUMENT)
        )


class MapPolicy:
    """Second generation: the same class method, which returns the map alone."""

    @classmethod
    def rebalance_experts(
        cls,
        weight: Any,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: Any = None,
    ) -> torch.Tensor:
        """Plan as :meth:`TriplePolicy.rebalance_experts` and return ``phy2log``, int64 [layers, num_replicas] on the CPU."""
        loads = as_weight(weight, "weight", "layers, experts")
        return torch.from_numpy(
            _placement(loads, num_replicas, num_groups, num_nodes, num_ranks, old_global_expert_indices, OLD_ARGUMENT).phy2log
        )


@dataclass(frozen=True)
class EplbPlan:
    """Stands for vLLM's class of that name where vLLM is not installed.

    Parameters
    ----------
    physical_to_logical_map : Tensor
        int64 [layers, slots] on the CPU.
    """

    physical_to_logical_map: torch.Tensor


class EplbPolicyState:
    """Stands for vLLM's class of that name where vLLM is not installed; this policy keeps nothing in it."""


class PlanningPolicy:
    """Third generation: an instance that plans on a history of loads, with a state per model that only commits may change."""

    def create_state(self, num_moe_layers: int) -> Any:
        """Return vLLM's empty state: a plan depends on its context, and on what a controller remembers by itself."""
        return _vllm_type(EplbPolicyState)()

    def plan_rebalance(self, context: Any, policy_state: Any = None) -> Any:
        """Plan replicas and their slots for every layer.

        Parameters
        ----------
        context : object
            With ``load_window_cpu`` [samples, layers, experts], of which the sum is planned on, ``physical_to_logical_map_cpu``
            [layers, slots], ``topology.num_groups``, ``.num_nodes`` and ``.num_ranks``, and ``num_replicas``.
        policy_state : object, optional
            Not looked at.

        Returns
        -------
        EplbPlan
            vLLM's; its ``physical_to_logical_map`` is int64 [layers, num_replicas] on the CPU.

        Raises
        ------
        InputError
            If a field of the context or the environment is not what it must be.
        """
        history = as_weight(context.load_window_cpu, "load_window_cpu", "samples, layers, experts")
        shape = context.topology
        old, name = context.physical_to_logical_map_cpu, "physical_to_logical_map_cpu"
        placement = _placement(
            history,
            context.num_replicas,
            shape.num_groups,
            shape.num_nodes,
            shape.num_ranks,
            old,
            name,
        )
        return _vllm_type(EplbPlan)(torch.from_numpy(placement.phy2log))

    rebalance_experts = plan_rebalance  # its name in some versions

    def on_layer_committed(self, policy_state: Any, plan: Any, layer_idx: int) -> None:
        """Do nothing: there is no state to bring up to date."""


def register() -> None:
    """Put the policy behind the key "default" of vLLM's registry.

    ``vllm.distributed.eplb.policy`` is tried, and nothing else: it must have ``EPLB_POLICIES`` and ``AbstractEplbPolicy``.

    Raises
    ------
    InputError
        If that module or one of its names is missing, its interface is none of the three, or the environment is not what
        :func:`eplb_gap.heuristics.plugins.settings` needs, so that a server does not start with a setting it would stumble over
        later.
    """
    try:
        from vllm.distributed.eplb.policy import EPLB_POLICIES, AbstractEplbPolicy
    except ImportError as error:
        raise InputError(
            f"EPLB_POLICIES and AbstractEplbPolicy of vllm.distributed.eplb.policy cannot be imported ({error}); "
            "a vLLM that has them is needed"
        ) from None
    prepare()
    EPLB_POLICIES["default"] = policy_for(AbstractEplbPolicy)


def policy_for(abstract: Any) -> type[TriplePolicy | MapPolicy | PlanningPolicy]:
    """Return the policy class that fits vLLM's abstract one.

    Parameters
    ----------
    abstract : type
        With ``plan_rebalance`` or ``create_state`` it is of the third generation; otherwise the return annotation of
        ``rebalance_experts``, a tuple or a Tensor, tells the first from the second.

    Raises
    ------
    InputError
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
    raise InputError(f"AbstractEplbPolicy returns {returned}; a vLLM whose policies return a tuple, a Tensor or a plan is needed")


def _placement(
    weight: Any, num_replicas: int, num_groups: int, num_nodes: int, num_ranks: int, old: Any, old_name: str
) -> Placement:
    layers, experts = weight.shape[-2:]
    deployment = Deployment(experts, num_replicas, num_ranks, num_nodes=num_nodes, num_groups=num_groups)
    previous = None
    if old is not None:
        table = torch.as_tensor(old).detach().to("cpu")
        if table.is_floating_point() or table.is_complex() or table.dtype == torch.bool:
            raise InputError(f"{old_name} is {table.dtype}; integers [layers, slots] are needed")
        if tuple(table.shape) == (layers, num_replicas):
            previous = Placement(table.numpy(), experts)
    return replan(weight, deployment, previous)


def _vllm_type(ours: type) -> Any:
    """Return vLLM's class of the same name, or ours where it has none."""
    try:
        import vllm.distributed.eplb.policy as theirs
    except ImportError:
        return ours
    return getattr(theirs, ours.__name__, ours)
