"""The public names of eplb-gap, imported when they are first used.

The rooms of the project are the packages below it, in the order in which they may use each other: :mod:`eplb_gap.problem`,
:mod:`eplb_gap.heuristics`, :mod:`eplb_gap.solvers`, :mod:`eplb_gap.analysis`, :mod:`eplb_gap.experiments`, :mod:`eplb_gap.cli`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = [
    "ENGINES",
    "HEURISTICS",
    "Controller",
    "Deployment",
    "InputError",
    "Interrupted",
    "LoadTrace",
    "Placement",
    "PlacementError",
    "RoutingTrace",
    "Solution",
    "calibrate",
    "calibrate_online",
    "capacity",
    "check_certificate",
    "evaluate",
    "explain",
    "hierarchical_front",
    "network_traffic",
    "optimal_split",
    "plan_for_split",
    "read_loads",
    "read_map",
    "read_problem",
    "read_routing",
    "rebalance",
    "rebalance_experts",
    "replan",
    "replay",
    "sample_average",
    "score",
    "solve",
    "verify",
    "watch",
    "write_map",
]

if TYPE_CHECKING:  # what type checkers read; a test compares it with the table below
    from eplb_gap.analysis.asked import read_problem
    from eplb_gap.analysis.calibration import calibrate
    from eplb_gap.analysis.capacity import capacity
    from eplb_gap.analysis.evaluate import evaluate
    from eplb_gap.analysis.explain import explain
    from eplb_gap.analysis.network.traffic import network_traffic
    from eplb_gap.analysis.online.calibrate import calibrate_online
    from eplb_gap.analysis.protocol import score
    from eplb_gap.analysis.replay.replay import replay
    from eplb_gap.analysis.watch.follow import watch
    from eplb_gap.heuristics.control.controller import Controller
    from eplb_gap.heuristics.eplb import rebalance_experts
    from eplb_gap.heuristics.moves.migration import replan
    from eplb_gap.heuristics.registry import HEURISTICS as HEURISTICS
    from eplb_gap.heuristics.registry import rebalance
    from eplb_gap.heuristics.serving.sample_average import plan as sample_average
    from eplb_gap.heuristics.serving.split_placement import plan as plan_for_split
    from eplb_gap.heuristics.serving.token_split import optimal_split
    from eplb_gap.problem.certificate import check as check_certificate
    from eplb_gap.problem.deployment import Deployment
    from eplb_gap.problem.errors import InputError, PlacementError
    from eplb_gap.problem.formats.loads.recorded import read as read_loads
    from eplb_gap.problem.formats.maps.maps import read_map, write_map
    from eplb_gap.problem.formats.routing.reading import read_routing
    from eplb_gap.problem.loads import LoadTrace
    from eplb_gap.problem.placement import Placement
    from eplb_gap.problem.routing.trace import RoutingTrace
    from eplb_gap.problem.validation import verify
    from eplb_gap.solvers.facade import ENGINES as ENGINES
    from eplb_gap.solvers.facade import solve
    from eplb_gap.solvers.locality.hierarchical_front import hierarchical_front
    from eplb_gap.solvers.solution import Interrupted, Solution

_HOMES = {
    "Controller": "heuristics.control.controller:Controller",
    "Deployment": "problem.deployment:Deployment",
    "ENGINES": "solvers.facade:ENGINES",
    "HEURISTICS": "heuristics.registry:HEURISTICS",
    "InputError": "problem.errors:InputError",
    "Interrupted": "solvers.solution:Interrupted",
    "LoadTrace": "problem.loads:LoadTrace",
    "Placement": "problem.placement:Placement",
    "PlacementError": "problem.errors:PlacementError",
    "RoutingTrace": "problem.routing.trace:RoutingTrace",
    "Solution": "solvers.solution:Solution",
    "calibrate": "analysis.calibration:calibrate",
    "calibrate_online": "analysis.online.calibrate:calibrate_online",
    "capacity": "analysis.capacity:capacity",
    "check_certificate": "problem.certificate:check",
    "evaluate": "analysis.evaluate:evaluate",
    "explain": "analysis.explain:explain",
    "hierarchical_front": "solvers.locality.hierarchical_front:hierarchical_front",
    "network_traffic": "analysis.network.traffic:network_traffic",
    "optimal_split": "heuristics.serving.token_split:optimal_split",
    "plan_for_split": "heuristics.serving.split_placement:plan",
    "read_loads": "problem.formats.loads.recorded:read",
    "read_map": "problem.formats.maps.maps:read_map",
    "read_problem": "analysis.asked:read_problem",
    "read_routing": "problem.formats.routing.reading:read_routing",
    "rebalance": "heuristics.registry:rebalance",
    "rebalance_experts": "heuristics.eplb:rebalance_experts",
    "replan": "heuristics.moves.migration:replan",
    "replay": "analysis.replay.replay:replay",
    "sample_average": "heuristics.serving.sample_average:plan",
    "score": "analysis.protocol:score",
    "solve": "solvers.facade:solve",
    "verify": "problem.validation:verify",
    "watch": "analysis.watch.follow:watch",
    "write_map": "problem.formats.maps.maps:write_map",
}
"""Public name -> where it is defined, under ``eplb_gap``."""
_ROOMS = ("analysis", "experiments", "heuristics", "problem", "solvers")

if not TYPE_CHECKING:  # a type checker would take every name for granted

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            module, _, defined = _HOMES[name].partition(":")
            return getattr(importlib.import_module(f"eplb_gap.{module}"), defined)
        if name in _ROOMS:
            return importlib.import_module(f"eplb_gap.{name}")
        raise AttributeError(f"module 'eplb_gap' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_ROOMS]
