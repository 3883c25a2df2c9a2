"""Alternating traffic: every window is traffic of one domain, served by the recorded model."""

from __future__ import annotations

import numpy as np

from eplb_gap.experiments.measuring.rows import RESULTS
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.loads import LoadTrace

DOMAIN_TRACE = RESULTS / "traces" / "recorded-domains.npz"
DOMAINS = ("dictionary", "german", "python")
WINDOW_STEPS, STATIONARY_STEPS = 10, 32


def mixed_trace(
    seed: int, domains: tuple[str, ...] = DOMAINS, alternating: bool = False, window_steps: int = WINDOW_STEPS
) -> LoadTrace:
    """Return windows of recorded steps, each from one domain, in random order; no step is used twice.

    Parameters
    ----------
    seed : int
        Seed of ``numpy.random.default_rng``.
    domains : tuple of str
        Phases of the recording, at least three.
    alternating : bool, default False
        Whether the domains take turns; otherwise their windows are shuffled.
    window_steps : int, default 10
        Steps that a window sums.

    Returns
    -------
    LoadTrace
        ``provenance["window_domains"]`` names the domain of every window.

    Raises
    ------
    InputError
        If fewer than three domains are asked for, or one that was not recorded, or windows longer than its recording.
    """
    steps = LoadTrace.load(DOMAIN_TRACE)
    pieces = _pieces(steps)
    if len(set(domains)) < 3 or not set(domains) <= set(pieces):
        raise InputError(f"domains is {domains}; at least three of {', '.join(sorted(pieces))} are needed")
    each = min(len(pieces[domain]) for domain in domains) // window_steps
    if each < 1:
        raise InputError(f"window_steps is {window_steps}; a domain has {min(len(p) for p in pieces.values())} steps")
    generator = np.random.default_rng(seed)
    own = {
        domain: iter(generator.permutation(len(pieces[domain]))[: each * window_steps].reshape(each, -1)) for domain in domains
    }
    order = list(domains) * each
    if not alternating:
        generator.shuffle(order)
    windows = [pieces[domain][next(own[domain])].sum(axis=0) for domain in order]
    return LoadTrace(
        np.stack(windows),
        {
            **steps.provenance,
            "kind": "recorded from a small model trained for this purpose, steps of single domains rearranged",
            "window_steps": window_steps,
            "window_domains": order,
            "arrangement_seed": seed,
        },
    )


def stationary_trace(seed: int, window_steps: int = STATIONARY_STEPS) -> LoadTrace:
    """Return windows of steps drawn from all domains alike: no window differs from another but by chance.

    Parameters
    ----------
    seed : int
        Seed of ``numpy.random.default_rng``.
    window_steps : int, default 32
        Steps that a window sums; those that fill no window are left out.
    """
    steps = LoadTrace.load(DOMAIN_TRACE)
    every = np.concatenate(list(_pieces(steps).values()))
    count = len(every) // window_steps
    order = np.random.default_rng(seed).permutation(len(every))[: count * window_steps].reshape(count, window_steps)
    return LoadTrace(
        np.stack([every[chosen].sum(axis=0) for chosen in order]),
        {
            **steps.provenance,
            "kind": "recorded from a small model trained for this purpose, steps of all domains shuffled",
            "window_steps": window_steps,
            "arrangement_seed": seed,
        },
    )


def _pieces(steps: LoadTrace) -> dict[str, np.ndarray]:
    """Return the recorded steps of every domain that was served alone, int64 [steps, layers, experts]."""
    pieces, first = {}, 0
    for phase in steps.provenance["phases"]:
        if list(phase["start"].values()) == [1.0] and phase["start"] == phase["end"]:
            pieces[next(iter(phase["start"]))] = steps.loads[first : first + phase["steps"]]
        first += phase["steps"]
    return pieces
