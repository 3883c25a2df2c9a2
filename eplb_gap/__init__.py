"""The public names of eplb-gap, imported when they are first used.

The rooms of the project are the packages below it, in the order in which they may use each other: :mod:`eplb_gap.problem`,
:mod:`eplb_gap.heuristics`, :mod:`eplb_gap.solvers`, :mod:`eplb_gap.analysis`, :mod:`eplb_gap.experiments`, :mod:`eplb_gap.cli`.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Deployment": "problem",
    "LoadTrace": "problem",
    "Placement": "problem",
    "rebalance": "heuristics",
    "rebalance_experts": "heuristics.eplb",
    "solve": "solvers",
    "verify": "problem",
}
_ROOMS = ("analysis", "experiments", "heuristics", "problem", "solvers")
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"eplb_gap.{_HOMES[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"eplb_gap.{name}")
    raise AttributeError(f"module 'eplb_gap' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_ROOMS]
