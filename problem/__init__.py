"""What is given, what is asked, how an answer is judged: the trusted kernel."""

from problem.deployment import PRESETS, Deployment, UnevenDeployment
from problem.errors import InputError, PlacementError
from problem.instance import Instance
from problem.loads import LoadTrace
from problem.placement import Placement
from problem.validation import verify

__all__ = [
    "PRESETS",
    "Deployment",
    "InputError",
    "Instance",
    "LoadTrace",
    "Placement",
    "PlacementError",
    "UnevenDeployment",
    "verify",
]
