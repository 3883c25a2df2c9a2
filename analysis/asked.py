"""What a question is about: recorded loads of any format, and the deployment that serves them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, Unpack

from eplb_gap.analysis.network.routed import Routed, along, in_windows, layer_ids, without_layers
from eplb_gap.problem import formats
from eplb_gap.problem.deployment import Deployment, Duplicates
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.loads.joined import Paths, as_paths
from eplb_gap.problem.formats.loads.recorded_calls import recorded_deployment
from eplb_gap.problem.formats.routing.reading import read_routing
from eplb_gap.problem.loads import LoadTrace

PolicyChoice = Literal["as-deployed", "global"]
SIZES = ("num_slots", "num_gpus", "num_nodes", "num_groups")


class Shape(TypedDict, total=False):
    """What changes a preset, or makes a deployment without one; what is left out stays as it is."""

    num_slots: int
    num_gpus: int
    num_nodes: int
    num_groups: int
    policy: PolicyChoice
    duplicates: Duplicates
    slots_per_gpu: Iterable[int]
    dead_gpus: Iterable[int]


@dataclass(frozen=True)
class Asked:
    """Loads and the deployment that serves them.

    Parameters
    ----------
    trace : LoadTrace
        Windows that are planned on and served.
    deployment : Deployment
    recorded : LoadTrace
        The same loads step by step, as they were recorded.
    routed : Routed or None
        The tokens of the windows, where routing was read.
    cluster : Deployment or None
        The deployment with the nodes that tokens cross, which the global policy does not look at; None without routing.
    """

    trace: LoadTrace
    deployment: Deployment
    recorded: LoadTrace
    routed: Routed | None = None
    cluster: Deployment | None = None

    @property
    def layer_ids(self) -> list[int]:
        """Which layer of the model every row of the loads is."""
        return list(self.trace.provenance.get("layer_ids") or range(self.trace.loads.shape[1]))


def read_problem(
    loads: Paths | None = None,
    deployment: str | Deployment | None = None,
    *,
    format: str | None = None,
    window: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    experts: int | None = None,
    leave_out_layers: Iterable[int] = (),
    routing: str | os.PathLike[str] | None = None,
    **shape: Unpack[Shape],
) -> Asked:
    """Read recorded loads of any known format together with the deployment that serves them.

    Parameters
    ----------
    loads : path or iterable of path, optional
        A trace (.npz), or a file or folder of a serving system; several are joined in the order of their times. Without them
        the loads are the counts of the routing.
    deployment : str or Deployment, optional
        A preset by its name, or a deployment as it is; without one, ``num_slots`` and ``num_gpus`` or ``slots_per_gpu`` say it,
        or a record folder of the plug-ins does, whose newest call had one.
    format : str, optional
        Format of the loads; recognised by default.
    window : int, optional
        Sum so many recorded steps into a window; by default each is one.
    progress : callable, optional
        ``progress(bytes read, bytes of the file)``, called while a large file is read.
    experts : int, optional
        Logical experts of a layer, where the loads do not name the last ones because they never had load.
    leave_out_layers : iterable of int, optional
        Layers of the model that are not looked at.
    routing : path, optional
        The experts of every token; beside loads those of their steps, or of some of them.
    **shape
        See :class:`Shape`: ``num_slots``, ``num_gpus``, ``num_nodes``, ``num_groups``, ``policy`` ("as-deployed" or "global"),
        ``duplicates``, ``slots_per_gpu`` (slots of every GPU) and ``dead_gpus`` (numbers of the GPUs that are dead).

    Returns
    -------
    Asked
        With ``trace`` and ``deployment``.

    Raises
    ------
    InputError
        If the loads cannot be read, neither preset nor sizes are given, or the deployment is not possible; what can be refused
        without the loads is refused before they are read.

    Examples
    --------
    >>> import tempfile
    >>> from eplb_gap import LoadTrace, read_problem
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     LoadTrace([[[9, 5, 3, 1]], [[5, 9, 3, 1]]]).save(f"{folder}/loads.npz")
    ...     asked = read_problem(f"{folder}/loads.npz", num_slots=6, num_gpus=3, dead_gpus=[1])
    >>> asked.trace.loads.shape, asked.deployment.live.num_gpus
    ((2, 1, 4), 2)
    """
    if loads is None and routing is None:
        raise InputError("loads is missing; recorded loads, or routing, are needed")
    if loads is None and format is not None:
        raise InputError(f"format is {format!r}, which is of loads; no loads are given")
    paths = None if loads is None else as_paths(loads)  # of any iterable, which is gone through twice
    if isinstance(deployment, str | Deployment):
        known = Deployment.preset(deployment) if isinstance(deployment, str) else deployment
        if experts is not None and experts != known.num_experts:
            raise InputError(f"experts is {experts}; deployment {deployment!r} has {known.num_experts}")
    elif deployment is None and not ({"num_slots", "num_gpus"} <= shape.keys() or "slots_per_gpu" in shape):
        found = None if paths is None else recorded_deployment(paths)
        if found is None:
            raise InputError(
                "deployment is missing; the name of a preset, or num_slots and num_gpus, or slots_per_gpu, is needed"
            )
        shape = {**_shape_of(found), **shape}
    if paths is None:
        assert routing is not None
        routed = in_windows(without_layers(read_routing(routing, experts=experts), leave_out_layers), window)
        return _with_cluster(
            Asked(routed.trace, _of(routed.trace, deployment, shape), routed.recorded, routed), deployment, shape
        )
    recorded = formats.read(paths, format, progress=progress, experts=experts, leave_out_layers=leave_out_layers)
    trace = formats.grouped(recorded, window)
    asked = Asked(trace, _of(trace, deployment, shape), recorded)
    if routing is None:
        return asked
    tokens = read_routing(routing, experts=trace.loads.shape[2])
    tokens = without_layers(tokens, set(leave_out_layers).intersection(layer_ids(tokens)))
    return _with_cluster(replace(asked, routed=along(tokens, trace, recorded)), deployment, shape)


def _of(trace: LoadTrace, deployment: str | Deployment | None, shape: Shape) -> Deployment:
    return choose_deployment(trace.loads.shape[2], deployment, **shape)


def _with_cluster(asked: Asked, deployment: str | Deployment | None, shape: Shape) -> Asked:
    """Return the question with the nodes of its deployment, whatever its policy.

    Dead GPUs pass, for decode leaves them out; what counts traffic refuses them.

    Raises
    ------
    InputError
        If slots are unequal, with which nothing counts tokens.
    """
    cluster = asked.deployment
    if cluster.unequal_slots:
        cluster.require_regular("decode as well as traffic")
    if shape.get("policy") == "global" and not cluster.dead_gpus:  # dead ones are of one node already
        cluster = replace(_of(asked.trace, deployment, {**shape, "policy": "as-deployed"}), num_groups=1)
    return replace(asked, cluster=cluster)


def choose_deployment(experts: int, deployment: str | Deployment | None = None, **shape: Unpack[Shape]) -> Deployment:
    """Return a preset, changed by what is given, or a deployment made of that for ``experts`` experts.

    Parameters
    ----------
    experts : int
        Experts of the loads.
    deployment : str or Deployment, optional
        Name of a preset, or a deployment that nothing but the policy is changed of.
    **shape
        See :func:`read_problem`.

    Raises
    ------
    InputError
        If the result is not possible or has other experts, or a deployment is to be changed.
    """
    policy = shape.pop("policy", "as-deployed")
    if policy not in ("as-deployed", "global"):
        raise InputError(f"policy is {policy!r}; 'as-deployed' or 'global' is needed")
    if isinstance(deployment, Deployment):
        if shape:
            raise InputError(f"{', '.join(shape)} is given with a deployment; only a preset or sizes can be changed")
        made = deployment
    else:
        made = _made(experts, deployment, policy, shape)
    if made.num_experts != experts:
        hint = ""
        if made.num_experts // 2 < experts < made.num_experts:
            hint = f"; experts that never occur are added if experts is given as {made.num_experts}"
        raise InputError(f"the loads have {experts} experts; deployment {deployment!r} has {made.num_experts}{hint}")
    return made.as_global() if policy == "global" else made


def _shape_of(deployment: Deployment) -> Shape:
    """Return what makes a deployment for experts that the loads tell."""
    shape: Shape = {
        "num_nodes": deployment.num_nodes,
        "num_groups": deployment.num_groups,
        "duplicates": deployment.duplicates,
        "dead_gpus": deployment.dead_gpus,
    }
    if deployment.unequal_slots:
        return {**shape, "slots_per_gpu": deployment.unequal_slots}
    return {**shape, "num_slots": deployment.num_slots, "num_gpus": deployment.num_gpus}


def _made(experts: int, preset: str | None, policy: PolicyChoice, shape: Shape) -> Deployment:
    fields: dict[str, Any] = {"num_experts": experts}
    if preset is not None:
        base = Deployment.preset(preset)
        fields = {"num_experts": base.num_experts} | {name: getattr(base, name) for name in SIZES}
    uneven, dead = shape.get("slots_per_gpu"), tuple(shape.get("dead_gpus", ()))
    if uneven is not None:
        fields.pop("num_slots", None)  # they add up to it
    fields |= {name: value for name, value in shape.items() if name != "dead_gpus"}
    if policy == "global" and (uneven is not None or dead):
        fields |= {"num_nodes": 1, "num_groups": 1}  # nothing else can have unequal or dead GPUs
    whole = Deployment(**fields)
    return whole if not dead else Deployment(**fields, active=_alive(dead, whole.num_gpus))


def _alive(dead: tuple[int, ...], gpus: int) -> list[bool]:
    for gpu in dead:
        if not isinstance(gpu, int) or isinstance(gpu, bool) or not 0 <= gpu < gpus:
            raise InputError(f"dead_gpus names GPU {gpu!r}; the GPUs are 0 to {gpus - 1}")
        if dead.count(gpu) > 1:
            raise InputError(f"dead_gpus names GPU {gpu} twice; every dead GPU is named once")
    return [gpu not in dead for gpu in range(gpus)]
