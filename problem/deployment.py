"""The serving deployment: how many experts, slots, GPUs, nodes and groups, and what a placement may do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from eplb_gap.problem.errors import InputError

Duplicates = Literal["allowed", "forbidden"]
Policy = Literal["hierarchical", "global"]


@dataclass(frozen=True)
class Deployment:
    """Shape of an expert-parallel deployment; the same for every layer.

    Slot ``s`` is on GPU ``s // slots_per_gpu``, GPU ``g`` on node ``g // gpus_per_node``, expert ``e`` in group
    ``e // experts_per_group``. ``Deployment(..., slots_per_gpu=[...], active=[...])``, both by name, makes an
    :class:`UnevenDeployment`: unequal slots and dead GPUs.

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

    Examples
    --------
    >>> from eplb_gap import Deployment
    >>> deployment = Deployment(num_experts=12, num_slots=16, num_gpus=8, num_nodes=2, num_groups=4)
    >>> deployment.policy, deployment.slots_per_gpu
    ('hierarchical', 2)
    >>> Deployment.preset("dsv3-prefill-ep32").num_gpus
    32
    >>> Deployment(4, slots_per_gpu=[1, 3, 2]).num_slots
    6
    """

    num_experts: int
    num_slots: int
    num_gpus: int
    num_nodes: int = 1
    num_groups: int = 1
    duplicates: Duplicates = "allowed"

    if TYPE_CHECKING:

        def __init__(
            self,
            num_experts: int,
            num_slots: int = ...,
            num_gpus: int = ...,
            num_nodes: int = 1,
            num_groups: int = 1,
            duplicates: Duplicates = "allowed",
            *,
            slots_per_gpu: Iterable[int] | None = None,
            active: Iterable[bool] | None = None,
        ) -> None: ...

    else:

        def __new__(cls, *arguments: Any, **named: Any) -> Self:
            # As with pathlib.Path, the arguments choose the class: regular deployments keep their fields, repr and hash.
            uneven = cls is Deployment and not named.keys().isdisjoint(("slots_per_gpu", "active"))
            return object.__new__(UnevenDeployment if uneven else cls)

    def __post_init__(self) -> None:
        self._check_numbers()
        if self.num_slots < self.num_experts:
            raise InputError(
                f"num_slots is {self.num_slots}; at least num_experts = {self.num_experts} are needed, one slot each"
            )
        self._check_divides("num_gpus", "num_slots")
        self._check_layout()
        if self.duplicates == "forbidden":
            on_a_node = self.num_experts // self.num_nodes if self.policy == "hierarchical" else self.num_experts
            self._check_distinct(self.slots_per_gpu, on_a_node)

    def _check_numbers(self) -> None:
        for name in ("num_experts", "num_slots", "num_gpus", "num_nodes", "num_groups"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} is {value!r}; a positive integer is needed")
        if self.duplicates not in get_args(Duplicates):
            raise InputError(f"duplicates is {self.duplicates!r}; 'allowed' or 'forbidden' is needed")

    def _check_layout(self) -> None:
        self._check_divides("num_nodes", "num_gpus")
        self._check_divides("num_groups", "num_experts")

    def _check_distinct(self, slots: int, on_a_node: int) -> None:
        if slots > on_a_node:
            raise InputError(
                f"duplicates='forbidden' with {slots} slots per GPU; "
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
    def slots_by_gpu(self) -> tuple[int, ...]:
        """Slots of every GPU, dead ones included."""
        return (self.slots_per_gpu,) * self.num_gpus

    @property
    def live(self) -> Deployment:
        """The GPUs that are alive as a deployment of their own: itself unless some are dead."""
        return self

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


@dataclass(frozen=True)
class UnevenDeployment(Deployment):
    """A deployment whose GPUs have unequal slots, or some of whose GPUs are dead; made by :class:`Deployment`.

    Slots are numbered GPU after GPU: GPU ``g`` has the ``slots_per_gpu[g]`` slots behind those of the GPUs before it. The slots
    of a dead GPU are part of every map but hold nothing: see :mod:`eplb_gap.problem.dead_ranks`. The policy is global.

    Parameters
    ----------
    num_experts : int
    num_slots : int, optional
        S, dead GPUs included: the sum of ``slots_per_gpu``.
    num_gpus : int, optional
        G, dead GPUs included: the length of ``slots_per_gpu``.
    num_nodes, num_groups : int, default 1
        The groups must not divide over more than one node.
    duplicates : {"allowed", "forbidden"}, default "allowed"
    slots_per_gpu : iterable of int [gpus], optional
        Slots of every GPU, positive; by default ``num_slots / num_gpus`` each. Kept as a tuple.
    active : iterable of bool [gpus], optional
        Which GPUs are alive; by default all. Kept as a tuple.

    Raises
    ------
    InputError
        As :class:`Deployment`; if the slots do not add up, the GPUs that are alive have fewer slots than there are experts, or
        the policy would be hierarchical.
    """

    num_slots: int = None  # type: ignore[assignment]  # found out from slots_per_gpu
    num_gpus: int = None  # type: ignore[assignment]
    slots_per_gpu: tuple[int, ...] = None  # type: ignore[assignment]
    active: tuple[bool, ...] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.slots_per_gpu is not None:
            slots = _as_integers(self.slots_per_gpu)
            object.__setattr__(self, "slots_per_gpu", slots)
            for name, found in (("num_slots", sum(slots)), ("num_gpus", len(slots))):
                if getattr(self, name) is None:
                    object.__setattr__(self, name, found)
                elif getattr(self, name) != found:
                    raise InputError(f"{name} is {getattr(self, name)!r}; slots_per_gpu says {found}")
        self._check_numbers()
        if self.slots_per_gpu is None:
            self._check_divides("num_gpus", "num_slots")
            object.__setattr__(self, "slots_per_gpu", (self.num_slots // self.num_gpus,) * self.num_gpus)
        alive = (True,) * self.num_gpus if self.active is None else _as_booleans(self.active, self.num_gpus)
        object.__setattr__(self, "active", alive)
        self._check_layout()
        on_live = [slots for slots, alive in zip(self.slots_per_gpu, self.active, strict=True) if alive]
        if sum(on_live) < self.num_experts:
            raise InputError(
                f"{len(on_live)} of {self.num_gpus} GPUs are active, with {sum(on_live)} slots; "
                f"at least num_experts = {self.num_experts} slots are needed, or an expert is nowhere"
            )
        if self.policy == "hierarchical":
            raise InputError(
                f"num_groups is {self.num_groups} on {self.num_nodes} nodes, the hierarchical policy; "
                "unequal slots and dead GPUs are planned under the global one, num_nodes = num_groups = 1"
            )
        if self.duplicates == "forbidden":
            self._check_distinct(max(on_live), self.num_experts)

    @property
    def slots_by_gpu(self) -> tuple[int, ...]:
        """Slots of every GPU, dead ones included."""
        return self.slots_per_gpu

    @property
    def live(self) -> Deployment:
        """The GPUs that are alive as a deployment of their own, a regular one if they have equally many slots."""
        slots = [slots for slots, alive in zip(self.slots_per_gpu, self.active, strict=True) if alive]
        if len(set(slots)) == 1:
            return Deployment(self.num_experts, sum(slots), len(slots), duplicates=self.duplicates)
        return Deployment(self.num_experts, duplicates=self.duplicates, slots_per_gpu=slots)


def _as_integers(value: Any) -> tuple[int, ...]:
    try:
        slots = tuple(value)
    except TypeError:
        raise InputError(f"slots_per_gpu is {value!r}; a list with the slots of every GPU is needed") from None
    for gpu, count in enumerate(slots):
        if isinstance(count, bool) or not hasattr(count, "__index__") or count < 1:
            raise InputError(f"slots_per_gpu[{gpu}] is {count!r}; a positive integer is needed (a dead GPU is named by active)")
    return tuple(int(count) for count in slots)


def _as_booleans(value: Any, num_gpus: int) -> tuple[bool, ...]:
    try:
        flags = tuple(value)
    except TypeError:
        raise InputError(f"active is {value!r}; a list with True or False for every GPU is needed") from None
    if len(flags) != num_gpus:
        raise InputError(f"active has {len(flags)} entries; one for each of the {num_gpus} GPUs is needed")
    for gpu, flag in enumerate(flags):
        if type(flag).__name__ not in ("bool", "bool_"):
            raise InputError(f"active[{gpu}] is {flag!r}; True or False is needed")
    return tuple(bool(flag) for flag in flags)


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
