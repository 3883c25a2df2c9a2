"""Record folders for tests: calls written as the plug-ins write them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem import Deployment
from eplb_gap.problem.formats.containers.record_files import Call, call_path, write_call

DEPLOYMENT = Deployment(4, 6, 3)
OLD = np.array([[0, 1, 2, 3, 0, 1], [3, 2, 1, 0, 3, 3]])
NEW = np.array([[0, 1, 2, 3, 2, 3], [3, 2, 1, 0, 1, 0]])
CALL = Call(np.arange(1, 9).reshape(1, 2, 4), 1.7e9, "vllm", "0.33.0", DEPLOYMENT, OLD, NEW)


def call(loads: Any, **changes: Any) -> Call:
    """Return a call with other loads, [layers, experts] or [samples, layers, experts]."""
    counts = np.asarray(loads)
    return replace(CALL, counts=counts if counts.ndim == 3 else counts[None], **changes)


def save(folder: Path, calls: Iterable[tuple[int, Call]]) -> list[Path]:
    """Write calls by their numbers; return their files."""
    paths = []
    for number, one in calls:
        paths.append(call_path(folder, number, *one.counts.shape[1:]))
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        with paths[-1].open("wb") as file:
            write_call(file, one)
    return paths
