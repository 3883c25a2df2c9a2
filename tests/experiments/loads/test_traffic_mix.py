"""Alternating traffic is made of recorded steps of one domain a window, each used once."""

from __future__ import annotations

import numpy as np
import pytest

from eplb_gap.experiments.loads.traffic_mix import DOMAIN_TRACE, DOMAINS, mixed_trace
from eplb_gap.problem import InputError, LoadTrace


def test_windows_add_up_to_the_recording_and_name_their_domains() -> None:
    trace, steps = mixed_trace(0), LoadTrace.load(DOMAIN_TRACE)
    assert trace.loads.shape == (30, 8, 256)
    names = [phase["name"] for phase in steps.provenance["phases"]]
    for domain in DOMAINS:
        first = 100 * names.index(domain)
        of_domain = [name == domain for name in trace.provenance["window_domains"]]
        assert sum(of_domain) == 10
        assert (trace.loads[of_domain].sum(axis=0) == steps.loads[first : first + 100].sum(axis=0)).all()
    assert (trace.loads.sum(axis=2) == trace.loads[0, 0].sum()).all()


def test_a_seed_is_an_arrangement() -> None:
    assert (mixed_trace(3).loads == mixed_trace(3).loads).all()
    assert mixed_trace(3).provenance["window_domains"] != mixed_trace(4).provenance["window_domains"]
    assert mixed_trace(3, alternating=True).provenance["window_domains"] == list(DOMAINS) * 10


def test_windows_of_a_domain_are_alike_and_of_two_domains_are_not() -> None:
    loads = mixed_trace(0, alternating=True).loads[:6].astype(float)
    shares = loads / loads.sum(axis=2, keepdims=True)
    distance = 0.5 * np.abs(shares[0] - shares).sum(axis=2).mean(axis=1)
    assert distance[3] < 0.1 < 0.3 < min(distance[1], distance[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domains": ("german", "python")}, "domains is .* at least three"),
        ({"domains": ("german", "python", "latin")}, "latin"),
        ({"window_steps": 101}, "window_steps is 101"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mixed_trace(0, **arguments)
