"""Published scorings of several programs: registered methods and users' Python files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from eplb_gap import heuristics
from eplb_gap.analysis.protocol import Protocol, Score, known, score, timed
from eplb_gap.analysis.user_program import ProgramError, UserProgram
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError


def score_all(
    protocol: str,
    loads: np.ndarray,
    deployment: Deployment,
    names: Iterable[str],
    call_seconds: float,
    progress: Callable[[str], None] = lambda name: None,
) -> dict[str, Score]:
    """Score every program; one that fails or breaks a rule is refused with the reason, the others go on.

    Parameters
    ----------
    protocol : {"seed", "gpu", "leaderboard"}
    loads : ndarray
        int64 [windows, layers, experts].
    deployment : Deployment
    names : iterable of str
        Keys of :data:`eplb_gap.heuristics.METHODS` or Python files, see :class:`eplb_gap.analysis.user_program.UserProgram`.
    call_seconds : float
        Time limit of one call of a program in a file.
    progress : callable, optional
        Called with every name before it is scored.

    Raises
    ------
    InputError
        If a name is neither, or protocol and loads are not what :func:`eplb_gap.analysis.protocol.score` takes.
    """
    names, checked = list(names), known(protocol, deployment)
    for name in names:
        if name not in heuristics.METHODS and not (name.endswith(".py") and Path(name).is_file()):
            raise InputError(f"{name!r} is neither a Python file nor a method; the methods are {', '.join(heuristics.METHODS)}")
    scores = {}
    for name in names:
        progress(name)
        scores[name] = _score(checked, loads, deployment, name, call_seconds)
    return scores


def _score(protocol: Protocol, loads: np.ndarray, deployment: Deployment, name: str, call_seconds: float) -> Score:
    if name in heuristics.METHODS:
        import torch

        torch.set_num_threads(1)  # as a program in a file has
        method = heuristics.METHODS[name]
        try:
            method(loads[0], deployment.live)  # the first call compiles kernels; it would be timed with them
        except InputError as error:
            return Score(protocol, f"failed: {error}", ())
        return score(protocol, loads, deployment, timed(method, deployment))
    try:
        with UserProgram(name, deployment, call_seconds=call_seconds) as program:
            return score(protocol, loads, deployment, program)
    except (ProgramError, PlacementError) as error:
        return Score(protocol, f"failed: {error}", ())
