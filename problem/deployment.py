"""The serving deployment: how many experts, slots, GPUs, nodes and groups, and what a placement may do."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from eplb_gap.problem.errors import InputError, shown

Duplicates = Literal["allowed", "forbidden"]
Policy = Literal["hierarchical", "global"]
NUMBERS = ("num_experts", "num_slots", "num_gpus", "num_nodes", "num_groups")


@dataclass(frozen=True, init=False, repr=False)
class Deployment:
    """Shape of an expert-parallel deployment; the same for every layer.

    A *regular* deployment has GPUs that are all alive with equally many slots: slot ``s`` is on GPU ``s // slots_per_gpu``, GPU
    ``g`` on node ``g // gpus_per_node``, expert ``e`` in group ``e // experts_per_group``. Otherwise slots are numbered GPU after
    GPU, :attr:`slots_by_gpu` each; the slots of a dead GPU are part of every map but hold nothing
    (:mod:`eplb_gap.problem.dead_ranks`); the policy is global. What can work with GPUs alike only asks for :attr:`slots_per_gpu`.

    Parameters
    ----------
    num_experts : int
        Logical experts E of a layer.
    num_slots : int
        Physical experts S, dead GPUs included: each holds one replica. May be left out where ``slots_per_gpu`` is given.
    num_gpus : int
        GPUs G, dead ones included; every GPU has ``S / G`` slots unless ``slots_per_gpu`` says otherwise, and then it may be
        left out.
    num_nodes : int, default 1
        Nodes N; every node has ``G / N`` GPUs.
    num_groups : int, default 1
        Expert groups of group-limited routing; they must divide the experts.
    duplicates : {"allowed", "forbidden"}, default "allowed"
        Whether a GPU may hold two replicas of one expert.
    slots_per_gpu : iterable of int [gpus], optional
        Slots of every GPU, positive.
    active : iterable of bool [gpus], optional
        Which GPUs are alive; by default all.
    unequal_slots, dead_gpus : iterable of int, optional
        The same two as they are kept: the slots of every GPU where they are not all equal, and the numbers of the dead GPUs.

    Raises
    ------
    InputError
        If a number is not a positive integer, does not divide as it must, there are fewer slots than experts on the GPUs that are
        alive, duplicates are forbidden and a GPU has more slots than its node has experts, slots or dead GPUs are given in two
        ways that differ, or the policy would be hierarchical with GPUs that are dead or unequal.

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
    unequal_slots: tuple[int, ...] = ()
    dead_gpus: tuple[int, ...] = ()

    def __init__(
        self,
        num_experts: int,
        num_slots: int | None = None,
        num_gpus: int | None = None,
        num_nodes: int = 1,
        num_groups: int = 1,
        duplicates: Duplicates = "allowed",
        *,
        slots_per_gpu: Iterable[int] | None = None,
        active: Iterable[bool] | None = None,
        unequal_slots: Iterable[int] = (),
        dead_gpus: Iterable[int] = (),
    ) -> None:
        slots = _as_slots("unequal_slots", unequal_slots)
        if slots_per_gpu is not None:
            slots = _both_ways("slots_per_gpu", _as_slots("slots_per_gpu", slots_per_gpu), "unequal_slots", slots)
        if slots:
            num_slots = _found("num_slots", num_slots, sum(slots))
            num_gpus = _found("num_gpus", num_gpus, len(slots))
        for name, value in zip(NUMBERS, (num_experts, num_slots, num_gpus, num_nodes, num_groups), strict=True):
            object.__setattr__(self, name, _positive(name, value))
        if duplicates not in ("allowed", "forbidden"):
            raise InputError(f"duplicates is {duplicates!r}; 'allowed' or 'forbidden' is needed")
        object.__setattr__(self, "duplicates", duplicates)
        object.__setattr__(self, "unequal_slots", slots if len(set(slots)) > 1 else ())
        if slots_per_gpu is None:
            self._check_regular_slots()
        dead = _as_gpus(dead_gpus, self.num_gpus)
        if active is not None:
            dead = _both_ways("active", _as_dead(active, self.num_gpus), "dead_gpus", dead)
        object.__setattr__(self, "dead_gpus", dead)
        self._check()

    def _check_regular_slots(self) -> None:
        if self.unequal_slots:
            return
        if self.num_slots < self.num_experts:
            raise InputError(
                f"num_slots is {self.num_slots}; at least num_experts = {self.num_experts} are needed, one slot each"
            )
        self._check_divides("num_gpus", "num_slots")

    def _check(self) -> None:
        self._check_divides("num_nodes", "num_gpus")
        self._check_divides("num_groups", "num_experts")
        on_live = self._slots_of_live_gpus()
        if sum(on_live) < self.num_experts:
            raise InputError(
                f"{len(on_live)} of {self.num_gpus} GPUs are active, with {sum(on_live)} slots; "
                f"at least num_experts = {self.num_experts} slots are needed, or an expert is nowhere"
            )
        if self.policy == "hierarchical" and not self.is_regular:
            raise InputError(
                f"num_groups is {self.num_groups} on {self.num_nodes} nodes, the hierarchical policy; "
                "unequal slots and dead GPUs are planned under the global one, num_nodes = num_groups = 1"
            )
        on_a_node = self.num_experts // self.num_nodes if self.policy == "hierarchical" else self.num_experts
        if self.duplicates == "forbidden" and max(on_live) > on_a_node:
            raise InputError(
                f"duplicates='forbidden' with {max(on_live)} slots per GPU; "
                f"a GPU can hold at most the {on_a_node} different experts of its node"
            )

    def _slots_of_live_gpus(self) -> tuple[int, ...]:
        if not self.dead_gpus:
            return self.slots_by_gpu
        return tuple(slots for slots, alive in zip(self.slots_by_gpu, self.active, strict=True) if alive)

    def _check_divides(self, part: str, whole: str) -> None:
        if getattr(self, whole) % getattr(self, part):
            raise InputError(f"{part} is {getattr(self, part)}; a divisor of {whole} = {getattr(self, whole)} is needed")

    def __repr__(self) -> str:
        return f"Deployment({', '.join(f'{name}={value!r}' for name, value in self.as_dict().items())})"

    def as_dict(self) -> dict[str, Any]:
        """Return the arguments that make this deployment, JSON-ready; those of slots and dead GPUs where it is not regular."""
        found = {name: getattr(self, name) for name in (*NUMBERS, "duplicates")}
        return found if self.is_regular else {**found, "slots_per_gpu": self.slots_by_gpu, "active": self.active}

    @property
    def policy(self) -> Policy:
        """ "hierarchical" if groups divide over more than one node, else "global" (DeepSeek's rule)."""
        return "hierarchical" if self.num_nodes > 1 and self.num_groups % self.num_nodes == 0 else "global"

    @property
    def is_regular(self) -> bool:
        """Whether all GPUs are alive and have equally many slots."""
        return not self.unequal_slots and not self.dead_gpus

    @property
    def slots_per_gpu(self) -> int:
        """Slots k of one GPU; an InputError where GPUs are unequal or dead, which whoever asks can't work with."""
        self.require_regular("this")
        return self.num_slots // self.num_gpus

    def require_regular(self, what: str) -> None:
        """Raise an InputError unless all GPUs are alive and have equally many slots, which ``what`` needs."""
        if self.unequal_slots:
            fewest, most = min(self.unequal_slots), max(self.unequal_slots)
            raise InputError(f"the GPUs have {fewest} to {most} slots; {what} needs equally many on each")
        if self.dead_gpus:
            raise InputError(f"GPU {', '.join(map(str, self.dead_gpus))} is dead; {what} needs all GPUs alive")

    @property
    def slots_by_gpu(self) -> tuple[int, ...]:
        """Slots of every GPU, dead ones included."""
        return self.unequal_slots or (self.num_slots // self.num_gpus,) * self.num_gpus

    @property
    def active(self) -> tuple[bool, ...]:
        """Which GPUs are alive."""
        dead = set(self.dead_gpus)
        return tuple(gpu not in dead for gpu in range(self.num_gpus))

    @property
    def live(self) -> Deployment:
        """The GPUs that are alive as a deployment of their own, regular if their slots are equal; itself unless some are dead."""
        if not self.dead_gpus:
            return self
        return Deployment(self.num_experts, duplicates=self.duplicates, slots_per_gpu=self._slots_of_live_gpus())

    @property
    def gpus_per_node(self) -> int:
        """GPUs of one node."""
        return self.num_gpus // self.num_nodes

    @property
    def slots_per_node(self) -> int:
        """Slots of one node; an InputError where GPUs are unequal or dead."""
        return self.slots_per_gpu * self.gpus_per_node

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


def _both_ways(name: str, value: tuple[int, ...], other_name: str, other: tuple[int, ...]) -> tuple[int, ...]:
    """Return what is given under a name and, if under another one too, alike."""
    if other and other != value:
        raise InputError(f"{name} and {other_name} are both given and differ; one of the two is needed")
    return value


def _positive(name: str, value: Any) -> int:
    """Return a positive integer of Python's or of an array library's, which is no flag."""
    try:
        # numpy's own flag is an index too before numpy 2.3, with a warning.
        number = 0 if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise InputError(f"{name} is {shown(value)}; a positive integer is needed")
    return number


def _found(name: str, given: int | None, found: int) -> int:
    if given is not None and _positive(name, given) != found:
        raise InputError(f"{name} is {given!r}; slots_per_gpu says {found}")
    return found


def _as_slots(name: str, value: Any) -> tuple[int, ...]:
    try:
        slots = tuple(value)
    except TypeError:
        raise InputError(f"{name} is {value!r}; a list with the slots of every GPU is needed") from None
    for gpu, count in enumerate(slots):
        if isinstance(count, bool) or not hasattr(count, "__index__") or count < 1:
            raise InputError(f"{name}[{gpu}] is {count!r}; a positive integer is needed (a dead GPU is named by active)")
    return tuple(int(count) for count in slots)


def _as_dead(value: Any, num_gpus: int) -> tuple[int, ...]:
    """Return the GPUs that a list of flags says are dead."""
    try:
        flags = tuple(value)
    except TypeError:
        raise InputError(f"active is {value!r}; a list with True or False for every GPU is needed") from None
    if len(flags) != num_gpus:
        raise InputError(f"active has {len(flags)} entries; one for each of the {num_gpus} GPUs is needed")
    for gpu, flag in enumerate(flags):
        if type(flag).__name__ not in ("bool", "bool_"):
            raise InputError(f"active[{gpu}] is {flag!r}; True or False is needed")
    return tuple(gpu for gpu, flag in enumerate(flags) if not flag)


def _as_gpus(value: Any, num_gpus: int) -> tuple[int, ...]:
    """Return dead GPUs in ascending order."""
    try:
        gpus = tuple(value)
    except TypeError:
        raise InputError(f"dead_gpus is {value!r}; a list of GPUs is needed") from None
    for gpu in gpus:
        if isinstance(gpu, bool) or not hasattr(gpu, "__index__") or not 0 <= gpu < num_gpus or gpus.count(gpu) > 1:
            raise InputError(f"dead_gpus names {gpu!r}; different GPUs from 0 to {num_gpus - 1} are needed")
    return tuple(sorted(int(gpu) for gpu in gpus))


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
