"""The default engine: which method is used follows from the shape of the instance."""

from __future__ import annotations

from collections.abc import Iterator

from problem.deployment import Deployment
from problem.instance import Instance
from solvers import exact_cover, oracle, pairing, patterns, splitting
from solvers.engine import Engine, Finding, Incumbent, Limits

MAX_ENUMERATED_SLOTS = 9
MAX_COVERED_SLOTS = 32


def choose(num_slots: int, slots_per_gpu: int) -> Engine:
    """Return the engine for flat instances of a shape.

    ==================  ==================================================================
    one slot per GPU    nothing: every start is optimal
    up to 9 slots       brute force: milliseconds
    up to 32 slots      exact cover: branch and bound on the contents of the GPUs
    2 slots per GPU     pairing: the pairing structure is binding
    3 or 4 per GPU      patterns: annealing, neighbourhood search, pattern LP bound
    otherwise           splitting: the mean is the bound, the map is what is looked for
    ==================  ==================================================================
    """
    if slots_per_gpu == 1:
        return search_nothing
    if num_slots <= MAX_ENUMERATED_SLOTS:
        return oracle.search
    if num_slots <= MAX_COVERED_SLOTS:
        return exact_cover.search
    return _by_slots_per_gpu(slots_per_gpu)


def search(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield what the engine finds that :func:`choose` names; where exact cover has too many patterns, the next rule's follows."""
    engine = choose(instance.num_slots, instance.slots_per_gpu)
    yield from engine(instance, incumbent, limits)
    if engine is exact_cover.search:
        yield from _by_slots_per_gpu(instance.slots_per_gpu)(instance, incumbent, limits)


def _by_slots_per_gpu(k: int) -> Engine:
    if k == 2:
        return pairing.search
    return patterns.search if k <= 4 else splitting.search


def rests_on_the_mean(deployment: Deployment) -> bool:
    """Whether the mean bounds the nodes tightly, so that counts and re-partitions alone are expected to close the gap."""
    return choose(deployment.slots_per_node, deployment.slots_per_gpu) is splitting.search


def search_nothing(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield nothing: the closed-form bounds and the first map that every solve starts from are the answer."""
    return iter(())
