"""What is given, what is asked, how an answer is judged: the trusted kernel."""

from eplb_gap.problem.deployment import PRESETS, Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.loads import LoadTrace
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import verify

__all__ = [
    "PRESETS",
    "Deployment",
    "InputError",
    "Instance",
    "LoadTrace",
    "Placement",
    "PlacementError",
    "verify",
]
