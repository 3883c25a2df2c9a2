"""The options that say which loads and which deployment a command is about: one decorator adds them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from eplb_gap.cli.options import log
from eplb_gap.problem import Deployment, InputError

if TYPE_CHECKING:  # these load the readers of all formats, which `--help` need not wait for
    from eplb_gap.analysis.asked import Asked, Shape
    from eplb_gap.problem import LoadTrace

LOADS = "Recorded loads: traces (.npz), files or folders of a serving system; several are joined in the order of their times."
LoadsOption = typer.Option("--loads", metavar="PATH...", help=LOADS)
MISSING = "--deployment is missing; the name of a preset, or --slots and --gpus, or --slots-per-gpu, are needed"
LEFT_OUT = (
    ("dropped_layers", "layers without load (dense ones)"),
    ("dropped_steps", "steps without load"),
    ("left_out_steps", "oldest steps that fill no window"),
    ("left_out_tokens", "oldest tokens that fill no window"),
    ("older_calls", "calls older than can be read at once"),
)
NUMBERS = re.compile(r"[0-9]{1,9}(,[0-9]{1,9})*")
RANGES = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*")


class PolicyChoice(StrEnum):
    """Placement policies."""

    as_deployed = "as-deployed"
    global_ = "global"


class DuplicatesChoice(StrEnum):
    """Whether a GPU may hold two replicas of one expert."""

    allowed = "allowed"
    forbidden = "forbidden"


@dataclass(frozen=True)
class Question:
    """What a command line says of loads and deployment, nothing read yet."""

    loads: Annotated[list[Path] | None, LoadsOption] = None
    format: Annotated[str | None, typer.Option(help="Format of the loads; recognised by default.")] = None
    window: Annotated[int | None, typer.Option(help="Sum so many recorded steps into a window; by default each is one.")] = None
    leave_out_layers: Annotated[
        str | None, typer.Option(metavar="61,0-2", help="Layers of the model that are not looked at.")
    ] = None
    experts: Annotated[
        int | None, typer.Option(help="Logical experts of a layer, where the loads lack those that never occur.")
    ] = None
    deployment: Annotated[str | None, typer.Option(help="Name of a preset; the flags below change it.")] = None
    slots: Annotated[int | None, typer.Option(help="Physical experts of a layer.")] = None
    gpus: Annotated[int | None, typer.Option(help="GPUs.")] = None
    nodes: Annotated[int | None, typer.Option(help="Nodes.")] = None
    groups: Annotated[int | None, typer.Option(help="Expert groups of group-limited routing.")] = None
    slots_per_gpu: Annotated[
        str | None, typer.Option(metavar="9,9,8,...", help="Slots of every GPU where they are unequal; global policy.")
    ] = None
    dead_gpus: Annotated[
        str | None, typer.Option(metavar="3,7", help="Numbers of the GPUs that are dead, from 0; global policy.")
    ] = None
    policy: Annotated[PolicyChoice, typer.Option(help="Plan as deployed, or ignore nodes and groups.")] = PolicyChoice.as_deployed
    duplicates: Annotated[
        DuplicatesChoice | None, typer.Option(help="Two replicas of one expert on a GPU; allowed, or as a record says.")
    ] = None

    @property
    def loads_name(self) -> str:
        """Name of the file or folder of the loads, of several that of the first and how many more there are."""
        from eplb_gap.problem.formats.loads.joined import named

        assert self.loads is not None  # the commands that can do without look first
        return named(self.loads)

    def left_out(self) -> list[int]:
        """Return the layers that are not looked at.

        Raises
        ------
        InputError
            If they are no numbers or ranges of them.
        """
        text = self.leave_out_layers
        if text is None:
            return []
        ranges = [tuple(map(int, part.split("-"))) for part in text.split(",")] if RANGES.fullmatch(text) else [(1, 0)]
        if any(ends[0] > ends[-1] for ends in ranges):
            raise InputError(f"--leave-out-layers is {text!r}; layers of the model and ranges of them, as in 61,0-2, are needed")
        return sorted({layer for ends in ranges for layer in range(ends[0], ends[-1] + 1)})

    def sizes(self) -> dict[str, int]:
        """Return the sizes that were given, by the names that a deployment has for them."""
        named = {"num_slots": self.slots, "num_gpus": self.gpus, "num_nodes": self.nodes, "num_groups": self.groups}
        return {name: value for name, value in named.items() if value is not None}

    def shape(self) -> Shape:
        """Return all that says what the deployment is, except the preset.

        Raises
        ------
        InputError
            If a list of GPUs or slots is none.
        """
        shape: dict[str, Any] = {**self.sizes(), "policy": self.policy.value}
        if self.duplicates is not None:
            shape["duplicates"] = self.duplicates.value
        for name, text, meant in (
            ("slots_per_gpu", self.slots_per_gpu, "the slots of every GPU, as in 9,9,8,"),
            ("dead_gpus", self.dead_gpus, "numbers of GPUs, as in 3,7,"),
        ):
            if text is not None:
                if NUMBERS.fullmatch(text) is None:
                    raise InputError(f"--{name.replace('_', '-')} is {text!r}; {meant} are needed")
                shape[name] = [int(number) for number in text.split(",")]
        return cast("Shape", shape)

    def read(self, routing: Path | None = None) -> Asked:
        """Read the loads and return them with the deployment; what was left out is said, large files show their progress.

        Parameters
        ----------
        routing : Path, optional
            The experts of every token, in place of the loads or beside them.

        Raises
        ------
        InputError
            As :func:`eplb_gap.read_problem`; a misspelt deployment is refused before a long read.
        """
        from eplb_gap.analysis.asked import read_problem
        from eplb_gap.problem.formats.loads.recorded_calls import recorded_deployment

        if self.loads is None and routing is None:
            raise InputError("--loads is missing; recorded loads, or --routing, are needed")
        shape, left_out = self.shape(), self.left_out()
        said = {"num_slots", "num_gpus"} <= shape.keys() or "slots_per_gpu" in shape or self.deployment is not None
        if not said and (self.loads is None or recorded_deployment(self.loads) is None):
            raise InputError(MISSING)
        columns = (TextColumn("reading {task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
        with Progress(*columns, console=log, transient=True, disable=not log.is_terminal) as bar:
            task = bar.add_task(self.name(routing), total=None)
            asked = read_problem(
                self.loads,
                self.deployment,
                format=self.format,
                window=self.window,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
                experts=self.experts,
                leave_out_layers=left_out,
                routing=routing,
                **shape,
            )
        self._say_left_out(asked.trace, self.name(routing))
        return asked

    def name(self, routing: Path | None) -> str:
        """Return what the loads are called, which are those of a routing where no others are given."""
        return routing.name if self.loads is None and routing is not None else self.loads_name

    def read_loads(self) -> LoadTrace:
        """Read the loads alone, as :meth:`read` does."""
        from eplb_gap.problem import formats

        assert self.loads is not None
        trace = formats.read(self.loads, self.format, self.window, experts=self.experts, leave_out_layers=self.left_out())
        self._say_left_out(trace, self.loads_name)
        return trace

    def deployment_alone(self) -> Deployment:
        """Return the deployment where no loads say the number of experts, but ``--experts`` or the preset.

        Raises
        ------
        InputError
            If neither says it, they contradict each other, or the deployment is not possible.
        """
        from eplb_gap.analysis.asked import choose_deployment

        named = self.experts if self.deployment is None else Deployment.preset(self.deployment).num_experts
        if self.experts is not None and self.experts != named:
            raise InputError(f"--experts is {self.experts}; deployment {self.deployment!r} has {named}")
        if named is None:
            raise InputError("--experts is missing; without --loads and --deployment the number of logical experts is needed")
        shape = self.shape()
        if self.deployment is None and not ({"num_slots", "num_gpus"} <= shape.keys() or "slots_per_gpu" in shape):
            raise InputError(MISSING)
        return choose_deployment(named, self.deployment, **shape)

    def _say_left_out(self, trace: LoadTrace, name: str) -> None:
        for key, what in LEFT_OUT:
            dropped = trace.provenance.get(key)
            count = dropped if isinstance(dropped, int) else len(dropped or ())
            if count:
                _say(f"{name}: {count} {what} left out")
        if added := trace.provenance.get("added_experts"):
            which = f"expert {added[0]} never occurs" if len(added) == 1 else f"experts {added[0]} to {added[-1]} never occur"
            _say(f"{name}: {which}; added without load")
        several = self.loads is not None and (len(self.loads) > 1 or self.loads[0].is_dir())
        if several and (parts := trace.provenance.get("joined")):
            first, last = parts[0]["file"], parts[-1]["file"]
            ends = "" if first == last else f", {first} to {last}"
            _say(f"{len(parts)} recordings joined by the {trace.provenance['joined_by']}{ends}")
        for notice in trace.provenance.get("notices", ()):
            _say(f"{name}: {notice}")


def _say(text: str) -> None:
    log.print(text, markup=False, highlight=False, soft_wrap=True)


def asks(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of :class:`Question` in place of its parameter ``question``; ``--loads`` is required."""
    return _with_options(command, loads_required=True)


def may_ask(command: Callable[..., None]) -> Callable[..., None]:
    """Do as :func:`asks` for a command that can do without ``--loads``."""
    return _with_options(command, loads_required=False)


def _with_options(command: Callable[..., None], loads_required: bool) -> Callable[..., None]:
    options = inspect.signature(Question, eval_str=True).parameters
    own = dict(inspect.signature(command, eval_str=True).parameters)
    del own["question"]
    asked = list(options.values())
    if loads_required:
        asked[0] = asked[0].replace(annotation=Annotated[list[Path], LoadsOption], default=inspect.Parameter.empty)

    def run(**given: Any) -> None:
        taken: dict[str, Any] = {name: given.pop(name) for name in options}
        question = Question(**{**taken, "loads": taken["loads"] or None})  # click gives none as an empty list
        command(question, **given)

    # By keyword: then an option without a default may come behind one that has it.
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*asked, *own.values())]
    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    vars(run)["__signature__"] = inspect.Signature(parameters)
    return run


def refuse_sizes(question: Question, what: str) -> None:
    """Refuse what would change a deployment that is fixed.

    Raises
    ------
    InputError
        Naming the options.
    """
    named = (
        "deployment", "slots", "gpus", "nodes", "groups", "slots_per_gpu", "dead_gpus", "format", "window", "leave_out_layers",
        "experts",
    )  # fmt: skip
    given = [f"--{name.replace('_', '-')}" for name in named if getattr(question, name) is not None]
    if given:
        raise InputError(f"{' and '.join(given)} is given with {what}, whose loads and deployment are fixed; leave it out")


def changed(deployment: Deployment, question: Question) -> Deployment:
    """Return a deployment that is given under the policy and the rule for duplicates that were asked for."""
    shape = replace(deployment, duplicates=(question.duplicates or DuplicatesChoice.allowed).value)
    return shape.as_global() if question.policy is PolicyChoice.global_ else shape
