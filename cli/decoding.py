"""``explain --decode`` and ``capacity --decode``: activated experts of the decode steps in recorded routing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from eplb_gap.cli.options import log
from eplb_gap.problem import InputError

if TYPE_CHECKING:  # these load the heuristics, which `--help` need not wait for
    from eplb_gap.analysis.asked import Asked
    from eplb_gap.analysis.step_time.profile import Profile
    from eplb_gap.analysis.windows import Windows
    from eplb_gap.cli.maps import PlannedMap

STEPS = "steps"
BATCH = 64
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
DecodeFlag = Annotated[
    bool,
    typer.Option("--decode", help="Count the experts whose weights the fullest GPU reads in a decode step; needs --routing."),
]
BatchOption = Annotated[
    str | None,
    typer.Option("--batch", metavar="TOKENS|steps", help=f"Tokens of a decode step, {BATCH} by default; or the recorded steps."),
]


def tiled(profile: Profile | None) -> Profile | None:
    """Return a profile that times experts, or none where none is given.

    Raises
    ------
    InputError
        If it has no tiles.
    """
    if profile is not None and profile.tiles is None:
        raise InputError(f"--profile is {profile.name}, which has no tiles; one that has is needed to time what --decode counts")
    return profile


def check_decode(decode: bool, routing: Path | None, batch: str | None, unread: dict[str, bool]) -> int | None:
    """Return the tokens of a step, None for the recorded steps, after a look at what was given.

    Parameters
    ----------
    decode : bool
    routing : Path or None
    batch : str or None
    unread : dict of str to bool
        Options that are not used with ``--decode``, and whether they are given.

    Raises
    ------
    InputError
        If routing is missing, a batch is none or given without ``--decode``, or an option is given that is not used.
    """
    if not decode:
        if batch is not None:
            raise InputError(f"--batch is {batch} without --decode; leave it out")
        return None
    if routing is None:
        raise InputError("--routing is missing; --decode counts the experts of recorded tokens")
    for option, given in unread.items():
        if given:
            raise InputError(f"{option} is given with --decode, which does not use it; leave it out")
    if batch == STEPS:
        return None
    if batch is not None and not NUMBER.fullmatch(batch):
        raise InputError(f"--batch is {batch!r}; a positive number of tokens, or {STEPS!r}, is needed")
    return BATCH if batch is None else int(batch)


def explain_decode(
    asked: Asked,
    windows: Windows,
    planned: PlannedMap,
    method: str,
    batch: int | None,
    profile: Profile | None,
    as_json: bool,
) -> None:
    """Print whether redundant slots hurt the decode steps of the serving window, and what the best choice recovers."""
    from eplb_gap.analysis.decode import redundancy

    assert asked.routed is not None
    with Progress(console=log, transient=True, disable=not log.is_terminal) as bar:
        task = bar.add_task("activated experts", total=None)
        found = redundancy.redundancy(
            asked.routed.tokens(windows.serve_window),
            windows.history,
            planned.regular("--map"),
            asked.deployment,
            method,
            planned.name,
            batch,
            profile,
            asked.routed.tokens(windows.plan_window),
            planned.method,
            lambda what, done, total: bar.update(task, completed=done, total=total, description=what),
        )
    _print(windows, redundancy.as_dict(found) if as_json else redundancy.report(found))


def decode_capacity(
    asked: Asked, windows: Windows, most_slots: int | None, batch: int | None, profile: Profile | None, as_json: bool
) -> None:
    """Print activated experts of the serving window over numbers of slots."""
    from eplb_gap.analysis.decode import by_slots

    assert asked.routed is not None
    with Progress(console=log, transient=True, disable=not log.is_terminal) as bar:
        task = bar.add_task("activated experts", total=None)
        found = by_slots.activated_by_slots(
            asked.routed.tokens(windows.serve_window),
            windows.history,
            asked.deployment,
            most_slots,
            batch=batch,
            profile=profile,
            tick=lambda what, done, total: bar.update(task, completed=done, total=total, description=what),
        )
    _print(windows, by_slots.as_dict(found, batch, profile) if as_json else by_slots.report(found, batch, profile))


def _print(windows: Windows, found: dict[str, Any] | str) -> None:
    """Print what was found with the windows that it was planned on and served, as JSON where it is data."""
    plan, serve = windows.plan_window, windows.serve_window
    if isinstance(found, str):
        print(f"Planned on window {plan}, serving window {serve}.\n{found}")
    else:
        print(json.dumps({"plan_window": plan, "serve_window": serve, **found}))
