"""Options that several commands take, and what they stand for."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from eplb_gap.problem import Deployment, InputError, LoadTrace

out, log = Console(), Console(stderr=True)

MISSING = "--deployment is missing; the name of a preset, or --slots and --gpus, or --slots-per-gpu, are needed"
INTERRUPTED = 130
"""Exit code after Ctrl-C; typer turns the interrupt into it."""


class PolicyChoice(StrEnum):
    """Placement policies."""

    as_deployed = "as-deployed"
    global_ = "global"


class DuplicatesChoice(StrEnum):
    """Whether a GPU may hold two replicas of one expert."""

    allowed = "allowed"
    forbidden = "forbidden"


JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Loads = Annotated[Path, typer.Option(help="Recorded loads: a trace (.npz), or a file or folder of a serving system.")]
MaybeLoads = Annotated[Path | None, typer.Option(help="Recorded loads: a trace (.npz), or a file or folder of a serving system.")]
Format = Annotated[str | None, typer.Option(help="Format of the loads; recognised by default.")]
Window = Annotated[int | None, typer.Option(help="Sum so many recorded steps into a window; by default each is one.")]
DeploymentName = Annotated[str | None, typer.Option("--deployment", help="Name of a preset; the flags below change it.")]
Slots = Annotated[int | None, typer.Option(help="Physical experts of a layer.")]
Gpus = Annotated[int | None, typer.Option(help="GPUs.")]
SlotsPerGpu = Annotated[
    str | None, typer.Option(help="Slots of every GPU where they are unequal, as 8,8,6; in place of --slots and --gpus.")
]
DeadGpus = Annotated[str | None, typer.Option(help="GPUs that are dead, as 3,7: their slots stay in every map and hold nothing.")]
Nodes = Annotated[int | None, typer.Option(help="Nodes.")]
Groups = Annotated[int | None, typer.Option(help="Expert groups of group-limited routing.")]
Policy = Annotated[PolicyChoice, typer.Option(help="Plan as deployed, or ignore nodes and groups.")]
DuplicatesOption = Annotated[DuplicatesChoice, typer.Option(help="Two replicas of one expert on a GPU.")]


def read_loads(path: Path, format: str | None, window: int | None) -> LoadTrace:
    """Read recorded loads of any known format; what was left out is said, large files show their progress."""
    from eplb_gap.problem import formats

    columns = (TextColumn("reading {task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=log, transient=True) as bar:
        task = bar.add_task(path.name, total=None)
        trace = formats.read(path, format, window, lambda done, total: bar.update(task, completed=done, total=total))
    found = trace.provenance
    for key, what in (
        ("dropped_layers", "layers without load (dense ones)"),
        ("dropped_steps", "steps without load"),
        ("left_out_steps", "oldest steps that fill no window"),
    ):
        dropped = found.get(key)
        count = dropped if isinstance(dropped, int) else len(dropped or ())
        if count:
            log.print(f"{path.name}: {count} {what} left out", markup=False, highlight=False, soft_wrap=True)
    return trace


def layer_ids(trace: LoadTrace) -> list[int]:
    """Return which layer of the model every row of the loads is."""
    return list(trace.provenance.get("layer_ids") or range(trace.loads.shape[1]))


def chosen_deployment(
    name: str | None,
    experts: int,
    slots: int | None,
    gpus: int | None,
    nodes: int | None,
    groups: int | None,
    policy: PolicyChoice,
    duplicates: DuplicatesChoice,
    slots_per_gpu: str | None = None,
    dead_gpus: str | None = None,
) -> Deployment:
    """Return a preset, changed by the flags that were given, or a deployment made of flags for ``experts`` experts.

    Raises
    ------
    InputError
        If neither a preset nor slots and GPUs are given, or the result is not possible.
    """
    given: dict[str, Any] = {
        key: value
        for key, value in (("num_slots", slots), ("num_gpus", gpus), ("num_nodes", nodes), ("num_groups", groups))
        if value is not None
    }
    given = {**_preset_fields(name, slots_per_gpu is not None), **given, "duplicates": duplicates.value}
    if slots_per_gpu is not None:
        given["slots_per_gpu"] = _numbers(slots_per_gpu, "--slots-per-gpu")
    elif not {"num_slots", "num_gpus"} <= given.keys():
        raise InputError(MISSING)
    if given.setdefault("num_experts", experts) != experts:
        raise InputError(f"the loads have {experts} experts; deployment {name!r} has {given['num_experts']}")
    if dead_gpus is not None:
        given["dead_gpus"] = _numbers(dead_gpus, "--dead-gpus")
    if policy is PolicyChoice.global_ and {"slots_per_gpu", "dead_gpus"} & given.keys():
        given |= {"num_nodes": 1, "num_groups": 1}  # what is planned globally alone cannot be made with nodes first
    shape = Deployment(**given)
    return shape.as_global() if policy is PolicyChoice.global_ else shape


def _preset_fields(name: str | None, without_slots: bool) -> dict[str, Any]:
    """Return the fields of a preset, if one is named; slots and GPUs are left out where they are given otherwise."""
    if name is None:
        return {}
    left_out = {"num_slots", "num_gpus"} if without_slots else set()
    return {key: value for key, value in Deployment.preset(name).as_dict().items() if key not in left_out}


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} is {text!r}; whole numbers with commas between them, as 3,7, are needed") from None


def read_problem(
    path: Path,
    format: str | None,
    window: int | None,
    name: str | None,
    slots: int | None,
    gpus: int | None,
    nodes: int | None,
    groups: int | None,
    policy: PolicyChoice,
    duplicates: DuplicatesChoice,
    slots_per_gpu: str | None = None,
    dead_gpus: str | None = None,
) -> tuple[LoadTrace, Deployment]:
    """Read loads and return them with the deployment that was asked for; a misspelt one is refused before a long read."""
    if name is not None:
        Deployment.preset(name)
    elif slots_per_gpu is None and (slots is None or gpus is None):
        raise InputError(MISSING)
    trace = read_loads(path, format, window)
    experts = trace.loads.shape[2]
    return trace, chosen_deployment(name, experts, slots, gpus, nodes, groups, policy, duplicates, slots_per_gpu, dead_gpus)


def writable_file(path: Path, option: str) -> Path:
    """Check that a file can be written, and make its folder, before any long work.

    Raises
    ------
    InputError
        If it is a folder, or its folder cannot be created or written to.
    """
    if path.is_dir():
        raise InputError(f"{option} is {path}, a folder; the name of a file is needed")
    writable_folder(path.parent, option)
    return path


def writable_folder(path: Path, option: str) -> Path:
    """Create the folder that a file will be written to, before any long work.

    Raises
    ------
    InputError
        If it cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option} is {path}; a folder that can be written to is needed ({error.strerror})") from None
    if not os.access(path, os.W_OK):
        raise InputError(f"{option} is {path}; a folder that can be written to is needed")
    return path
