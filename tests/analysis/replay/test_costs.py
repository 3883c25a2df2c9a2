"""Costs from outside: what is written is read, anything else is one error that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from eplb_gap import InputError
from eplb_gap.analysis.replay.costs import Costs, read_costs


def test_a_profile_of_costs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[costs]\nexpert_bytes = 44e6\nbandwidth = 25e9\noverlap = 0.5\n")
    assert read_costs(path) == Costs(44e6, 25e9, 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("[costs", "is no TOML"),
        ("bandwidth = 3", r"exactly one table \[costs\]"),
        ("[costs]\nexpert_bytes = 1", "costs.bandwidth is missing"),
        ("[costs]\nexpert_bytes = 1\nbandwidth = 0", "costs.bandwidth is 0"),
        ("[costs]\nexpert_bytes = -1\nbandwidth = 1", "costs.expert_bytes is -1"),
        ("[costs]\nexpert_bytes = 1\nbandwidth = nan", "costs.bandwidth is nan"),
        ("[costs]\nexpert_bytes = 1\nbandwidth = 1\noverlap = 1.5", "costs.overlap is 1.5; a number from 0 to 1"),
        ("[costs]\nexpert_bytes = true\nbandwidth = 1", "costs.expert_bytes is True"),
        ("[costs]\nexpert_bytes = 1\nbandwidth = 1\nlatency = 1", "costs.latency is not a key"),
        ("[costs]\nexpert_bytes = 1\nbandwidth = 1\ntokens_per_second = 0", "tokens_per_second is 0; a finite, positive"),
    ],
)
def test_a_profile_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_costs(path)
