"""What both reports on decode say in the same words: how steps are drawn, what was counted, and times with their profile."""

from __future__ import annotations

from typing import Any

import numpy as np

from eplb_gap.analysis.decode.activation import CHOICES, Activation, Choice
from eplb_gap.analysis.step_time.profile import Profile

QUANTILES = (0.1, 0.5, 0.9, 1.0)
READS_ALONE = '"Best" is the choice that reads the fewest experts; how long their tokens are computed plays no part in it.'
TIME_IS = "of a step's experts, all layers, on the GPUs that take longest; attention and network are not in it"


def percent(value: float, than: float) -> str:
    """Return by how much a value is above another, in words."""
    return f"{100 * (value / than - 1):+.1f} %"


def share(value: float) -> str:
    """Return a share in words: all of it is said only where it is all, and none only where it is none."""
    return f"{100 * value:g} %" if value in (0, 1) else f"{min(max(100 * value, 0.1), 99.9):.1f} %"


def steps_of(batch: int | None) -> str:
    """Return what the steps are, for a title."""
    return "the recorded steps" if batch is None else f"batches of {batch} tokens"


def drawn(batch: int | None, found: Activation) -> list[str]:
    """Return how batches come about, where they are no recorded steps, and what they leave out."""
    said = []
    if batch is not None and found.longest is None:
        said.append(f"No passes are recorded: a batch draws its {batch} tokens at even distances out of all that are served.")
    elif batch is not None and found.longest is not None and found.longest > batch:
        said.append(
            f"The recorded passes have up to {found.longest} tokens: a batch is no recorded step but draws {batch} tokens "
            "at even distances out of one pass."
        )
    if found.left_out:
        said.append(f"{found.left_out} tokens that fill no batch are left out.")
    return said


def summary(found: Activation, profile: Profile | None) -> dict[str, Any]:
    """Return what was counted as JSON-ready data; a time with its unit and the profile that it is predicted by."""
    times = None
    if profile is not None and found.seconds is not None:
        by_choice = {choice: found.mean_seconds(choice) for choice in CHOICES}
        times = {"unit": "seconds", "profile": profile.name, "of": TIME_IS, "mean": by_choice}
    return {
        "active": float(found.active.mean()),
        "bound": float(found.bound.mean()),
        "ideal": float(found.ideal.mean()),
        "proven": found.proven,
        "read": {
            choice: {
                "mean": found.mean(choice),
                "quantiles": {f"{q:g}": float(np.quantile(found.read[choice], q, method="nearest")) for q in QUANTILES},
                "by_layer": found.read[choice].mean(axis=1).tolist(),
            }
            for choice in CHOICES
        },
        "tokens": {choice: float(found.tokens[choice].mean()) for choice in CHOICES},
        "predicted_expert_time": times,
    }


def heading(profile: Profile | None) -> list[str]:
    """Return the heading of the column of times, which is there with a profile alone."""
    return [] if profile is None else ["predicted ms"]


def time(found: Activation, choice: Choice) -> list[str]:
    """Return the cell of that column."""
    seconds = found.mean_seconds(choice)
    return [] if seconds is None else [f"{1000 * seconds:.3f}"]


def cited(profile: Profile | None) -> list[str]:
    """Return what predicted times go with: what they are the time of, and the profile's name and source."""
    if profile is None:
        return []
    return [
        f"Predicted time {TIME_IS}.",
        f"Profile {profile.name}: {profile.source}; measured on {profile.measured_on}.",
    ]


def name_and_source(profile: Profile | None) -> dict[str, str] | None:
    """Return the same as JSON-ready data."""
    fields = ("name", "source", "measured_on")
    return None if profile is None else {field: getattr(profile, field) for field in fields}
