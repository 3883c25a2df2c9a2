"""The serving deployment: how many experts, slots, GPUs, nodes and groups, and what a placement may do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from problem.errors import InputError

Duplicates = Literal["allowed", "forbidden"]
Policy = Literal["hierarchical", "global"]


@dataclass(frozen=True)
class Deployment:
    """Shape of an expert-parallel deployment; the same for every layer.

    Slot ``s`` is on GPU ``s // slots_per_gpu``, GPU ``g`` on node ``g // gpus_per_node``, expert ``e`` in group
    ``e // experts_per_group``.

    Parameters
    ----------
    num_experts : int
        Logical experts E of a layer.
    num_slots : int
        Physical experts S: each holds one replica.
    num_gpus : int
        GPUs G; every GPU has exactly ``S / G`` slots.
    num_nodes : int, default 1
        Nodes N; every node has ``G / N`` GPUs.
    num_groups : int, default 1
        Expert groups of group-limited routing; they must divide the experts.
    duplicates : {"allowed", "forbidden"}, default "allowed"
        Whether a GPU may hold two replicas of one expert.

    Raises
    ------
    InputError
        If a number is not a positive integer, does not divide as it must, there are fewer slots than experts, or
        duplicates are forbidden and a GPU has more slots than its node has experts.
    """

    num_experts: int
    num_slots: int
    num_gpus: int
    num_nodes: int = 1
    num_groups: int = 1
    duplicates: Duplicates = "allowed"

    def __post_init__(self) -> None:
        for name in ("num_experts", "num_slots", "num_gpus", "num_nodes", "num_groups"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} is {value!r}; a positive integer is needed")
        if self.duplicates not in get_args(Duplicates):
            raise InputError(f"duplicates is {self.duplicates!r}; 'allowed' or 'forbidden' is needed")
        if self.num_slots < self.num_experts:
            raise InputError(
                f"num_slots is {self.num_slots}; at least num_experts = {self.num_experts} are needed, one slot each"
            )
        self._check_divides("num_gpus", "num_slots")
        self._check_divides("num_nodes", "num_gpus")
        self._check_divides("num_groups", "num_experts")
        if self.duplicates == "forbidden":
            on_a_node = self.num_experts // self.num_nodes if self.policy == "hierarchical" else self.num_experts
            if self.slots_per_gpu > on_a_node:
                raise InputError(
                    f"duplicates='forbidden' with {self.slots_per_gpu} slots per GPU; "
                    f"a GPU can hold at most the {on_a_node} different experts of its node"
                )

    def _check_divides(self, part: str, whole: str) -> None:
        if getattr(self, whole) % getattr(self, part):
            raise InputError(f"{part} is {getattr(self, part)}; a divisor of {whole} = {getattr(self, whole)} is needed")

    @property
    def policy(self) -> Policy:
        """ "hierarchical" if groups divide over more than one node, else "global" (DeepSeek's rule)."""
        return "hierarchical" if self.num_nodes > 1 and self.num_groups % self.num_nodes == 0 else "global"

    @property
    def slots_per_gpu(self) -> int:
        """Slots k of one GPU."""
        return self.num_slots // self.num_gpus

    @property
    def gpus_per_node(self) -> int:
        """GPUs of one node."""
        return self.num_gpus // self.num_nodes

    @property
    def slots_per_node(self) -> int:
        """Slots of one node."""
        return self.num_slots // self.num_nodes

    @property
    def experts_per_group(self) -> int:
        """Logical experts of one group."""
        return self.num_experts // self.num_groups

    @property
    def groups_per_node(self) -> int:
        """Groups that the hierarchical policy puts on one node."""
        return self.num_groups // self.num_nodes

    def as_global(self) -> Deployment:
        """Return the same GPUs and slots as one node with one group: the global policy."""
        return replace(self, num_nodes=1, num_groups=1)

    @classmethod
    def preset(cls, name: str) -> Deployment:
        """Return the deployment of a real system by its name in :data:`PRESETS`.

        Raises
        ------
        InputError
            If there is no such preset.
        """
        if name not in PRESETS:
            raise InputError(f"deployment is {name!r}; the presets are {', '.join(sorted(PRESETS))}")
        return PRESETS[name]


PRESETS: dict[str, Deployment] = {
    "dsv3-prefill-ep32": Deployment(256, 288, 32, num_nodes=4, num_groups=8),
    "dsv3-decode-ep144": Deployment(256, 288, 144),
    "dsv3-decode-ep320": Deployment(256, 320, 320),
    "gb200-ep36": Deployment(256, 288, 36),
    "qwen3-235b-ep16": Deployment(128, 160, 16),
    "kimi-k2-ep64": Deployment(384, 448, 64),
    "olmoe-ep16": Deployment(64, 80, 16),
    "mixtral-ep8": Deployment(8, 16, 8),
    "deepseek-readme": Deployment(12, 16, 8, num_nodes=2, num_groups=4),
}
"""Deployments of published systems; "deepseek-readme" is the worked example of DeepSeek's EPLB."""
