"""All kinds of controllers by name: whoever adds one adds its record here."""

from __future__ import annotations

from eplb_gap.heuristics.control.adaptive import ADAPTIVE
from eplb_gap.heuristics.control.controller import Kind
from eplb_gap.heuristics.control.foreseeing import CLAIRVOYANT
from eplb_gap.heuristics.control.kinds import BUDGETED, NONE, PERIODIC, ROUND_ROBIN, STATIC, THRESHOLD

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (NONE, STATIC, PERIODIC, BUDGETED, THRESHOLD, ROUND_ROBIN, ADAPTIVE, CLAIRVOYANT)
}
"""In the order in which help texts name them."""
