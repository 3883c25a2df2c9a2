"""A record folder of the plug-ins (:mod:`eplb_gap.problem.formats.containers.record_files`) as loads, and whose they are."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, printable
from eplb_gap.problem.formats.containers.limits import MAX_ELEMENTS
from eplb_gap.problem.formats.containers.record_files import FILE, MODEL, Call, is_record, newest_call, one_model, read_call
from eplb_gap.problem.formats.loads.joined import Paths, as_paths
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.recording import MAX_NOTICE, Progress, Recording

MAX_BROKEN = 20
"""Files left out that are named, each in a line."""


def read(path: Path, progress: Progress | None) -> Recording:
    """Read every sample of every call, oldest first: a window of a host that hands over sums, a forward pass of a history.

    Parameters
    ----------
    path : Path
        A record folder, the folder of one of its models, or the file of one call.

    Raises
    ------
    InputError
        If there are no calls, those of several models, none that can be read, or they do not belong together.

    Notes
    -----
    Where all calls would be more than can be read at once, the newest are, and ``older_calls`` says how many are left out. The
    deployment is that of the newest call; ``deployment_changes`` says how often it changed in between. Files of a folder that
    cannot be read are left out: ``broken_calls`` says how many, ``notices`` which and why.
    """
    paths = one_model(path)
    total, done = sum(_size(file) for file in paths), 0
    calls: list[Call] = []
    broken: list[str] = []  # newest first
    elements = 0
    for file in reversed(paths):
        try:
            call = read_call(file)
        except InputError as error:
            if calls and not file.exists():  # the server that records has removed its oldest calls meanwhile
                break
            if not path.is_dir():
                raise
            broken.append(str(error))
            continue
        if calls and call.counts.shape[1:] != calls[-1].counts.shape[1:]:
            shapes = call.counts.shape[1:], calls[-1].counts.shape[1:]
            raise InputError(f"file {file} has {shapes[0]} layers and experts; {shapes[1]}, as the file behind it, are needed")
        if calls and call.layer_ids != calls[-1].layer_ids:
            raise InputError(f"file {file} has other layer_ids than the file behind it")
        elements += call.counts.size
        if elements > MAX_ELEMENTS:
            break
        calls.append(call)
        done += _size(file)
        if progress is not None:
            progress(min(done, total), total)
    if not calls:
        raise InputError(broken[0])
    calls.reverse()
    newest = calls[-1]
    steps = np.concatenate([call.counts for call in calls]).astype(np.int64)
    notes: dict[str, Any] = {
        "host": f"{newest.host} {newest.host_version}",
        "recorded_seconds": [calls[0].time, newest.time],
        "calls": len(calls),
        "deployment": None if newest.deployment is None else newest.deployment.as_dict(),
        "deployment_changes": sum(old.deployment != new.deployment for old, new in pairwise(calls)),
    }
    for key, count in (
        ("older_calls", len(paths) - len(calls) - len(broken)),
        ("broken_calls", len(broken)),
        ("not_recorded_calls", sum(call.not_recorded for call in calls)),
        ("rounded_calls", sum(call.rounded for call in calls)),
    ):
        if count:
            notes[key] = count
    if broken:
        notes["notices"] = [f"left out: {printable(wrong)}"[:MAX_NOTICE] for wrong in broken[:MAX_BROKEN]]
        if len(broken) > MAX_BROKEN:
            notes["notices"].append(f"left out: {len(broken) - MAX_BROKEN} more files that cannot be read")
    layers = steps.shape[1]
    # SGLang counts all layers of a model, dense ones too, of which it then says nothing; other hosts those with experts.
    model_layers = layers if newest.host == "sglang" and newest.layer_ids is None else None
    return Recording(steps, newest.layer_ids or range(layers), model_layers, notes=notes)


def recorded_deployment(loads: Paths) -> Deployment | None:
    """Return the deployment of the newest readable call where paths are record folders, the folders of models, or files of them.

    Returns
    -------
    Deployment or None
        None where a path is none of these, or the host's shape was none that can be.

    Raises
    ------
    InputError
        If a folder or all of its files cannot be read, or it holds several models.
    """
    paths = as_paths(loads)
    if not all(map(is_record, paths)):
        return None
    newest = [newest_call(one_model(path))[1] for path in paths]
    return max(newest, key=lambda call: call.time).deployment


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


FORMAT = LoadFormat(
    "eplb-gap-record",
    "record folder of this package's plug-ins (EPLB_GAP_RECORD), the folder of one model in it, or the file of one call",
    read,
    folder=True,
    names=re.compile(f"{FILE.pattern}|{MODEL.pattern}"),
    recognise=lambda start: {"call.npy", "counts.npy"} <= set(start.entries),
)
