"""The default engine: which method is used follows from the shape of the instance."""

from __future__ import annotations

from collections.abc import Iterator

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.compact import cpsat
from eplb_gap.solvers.engine import Engine, Finding, Incumbent, Limits
from eplb_gap.solvers.engines import equal_cardinality, exact_cover, oracle, pairing, patterns, repartition

MAX_ENUMERATED_SLOTS = 9
MAX_COVERED_SLOTS = 32
MAX_COVERED_LAST_SLOTS = 48
"""Up to here exact cover proves most optima in seconds, some in a minute or more."""


def engines(num_experts: int, num_slots: int, slots_per_gpu: int) -> tuple[Engine, ...]:
    """Return the engines for flat instances of a shape, in the order in which they are run until the instance is closed.

    ==================  ==================================================================
    one slot per GPU    none: every start is optimal
    up to 9 slots       brute force: milliseconds
    up to 32 slots      exact cover: branch and bound on the contents of the GPUs
    2 slots per GPU     pairing: the pairing structure is binding
    3 or 4 per GPU      patterns: annealing, neighbourhood search, pattern LP bound
    otherwise           splitting: the mean is the bound, the map is what is looked for
    ==================  ==================================================================

    Without redundancy, from three slots per GPU on, equal cardinality comes before the engine for the slots per GPU.

    Up to 32 slots the engine for the slots per GPU follows exact cover, which gives up where there are too many patterns; up to
    48 slots so does patterns.
    """
    if slots_per_gpu == 1:
        return ()
    if num_slots <= MAX_ENUMERATED_SLOTS:
        return (oracle.ENGINE,)
    usual = {2: pairing.ENGINE, 3: patterns.ENGINE, 4: patterns.ENGINE}.get(slots_per_gpu, repartition.ENGINE)
    if num_slots <= MAX_COVERED_SLOTS:
        return exact_cover.ENGINE, usual
    coverable = usual is patterns.ENGINE and num_slots <= MAX_COVERED_LAST_SLOTS
    if num_experts == num_slots and usual is not pairing.ENGINE:
        return (equal_cardinality.ENGINE, usual, *((exact_cover.ENGINE,) if coverable else ()))
    return (exact_cover.ENGINE, usual) if coverable else (usual,)


def search(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield what the engines find that :func:`engines` names, one after the other.

    On GPUs with unequal slots, few slots are enumerated and otherwise CP-SAT searches where its model is small.
    """
    for engine in _of(instance) if instance.is_even else _for_unequal_slots(instance):
        yield from engine.search(instance, incumbent, limits)


def _of(instance: Instance) -> tuple[Engine, ...]:
    return engines(instance.num_experts, instance.num_slots, instance.slots_per_gpu)


def _for_unequal_slots(instance: Instance) -> tuple[Engine, ...]:
    if instance.num_slots <= MAX_ENUMERATED_SLOTS:
        return (oracle.ENGINE,)
    return (cpsat.ENGINE,)


def rests_on_the_mean(deployment: Deployment) -> bool:
    """Whether the mean bounds the nodes tightly, so that counts and re-partitions alone are expected to close the gap."""
    if not deployment.is_regular:
        return False
    return _of_nodes(deployment) == (repartition.ENGINE,)


def _of_nodes(deployment: Deployment) -> tuple[Engine, ...]:
    return engines(deployment.num_experts // deployment.num_nodes, deployment.slots_per_node, deployment.slots_per_gpu)


def closes_at_once(deployment: Deployment) -> bool:
    """Whether enumeration or exact cover is expected to close a layer sooner than the planners have been asked for maps."""
    return deployment.is_regular and deployment.slots_per_node <= MAX_COVERED_SLOTS


def enumerates(deployment: Deployment) -> bool:
    """Whether the nodes are so small that any exact engine needs milliseconds."""
    return deployment.num_slots // deployment.num_nodes <= MAX_ENUMERATED_SLOTS


def search_nothing(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield nothing: the closed-form bounds and the first map that every solve starts from are the answer."""
    return iter(())


def compile_engines(deployment: Deployment) -> None:
    """Compile the kernels of the engines that a deployment is given to; those for irregular GPUs have none of their own."""
    if not deployment.is_regular:
        return
    for engine in _of_nodes(deployment):
        if engine.compile is not None:
            engine.compile(deployment)


ENGINE = Engine("auto", search, unequal=True, compile=compile_engines)
BOUNDS = Engine("bounds", search_nothing, unequal=True, exact=False, swept=False)
