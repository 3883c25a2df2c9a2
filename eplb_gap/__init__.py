"""The public names of eplb-gap, imported when they are first used."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Deployment": "problem",
    "LoadTrace": "problem",
    "Placement": "problem",
    "rebalance": "heuristics",
    "rebalance_experts": "eplb_gap.heuristics.eplb",
    "solve": "solvers",
    "verify": "problem",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'eplb_gap' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
