"""What balancers are compared on: deployments of ten shapes, random loads of six kinds, and which layers a tie can decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from eplb_gap.problem.deployment import Deployment, Policy
from eplb_gap.problem.placement import Placement

SHAPES = (
    Deployment(256, 288, 32, 4, 8),
    Deployment(256, 288, 144),
    Deployment(256, 320, 64, 8, 8),
    Deployment(384, 448, 64),
    Deployment(128, 160, 16, 2, 8),
    Deployment(64, 80, 16, 2, 8),
    Deployment(64, 96, 8, 4, 4),
    Deployment(64, 64, 8, 2, 4),
    Deployment(12, 16, 8, 2, 4),
    Deployment(8, 16, 8),
)
KINDS = ("uniform", "lognormal", "zipf", "small", "half", "one")
"""Integers up to a million; spread as those of real experts; heavy-tailed; below 20, mostly tied; half of them zero; one hot."""
LAYERS = 20
"""Of every shape and kind."""
LARGEST = 1_000_000
SEED = 20261128


@dataclass(frozen=True)
class Case:
    """Loads to plan on.

    Parameters
    ----------
    loads : ndarray
        int64 [layers, experts], or [steps, layers, experts] for a balancer of histories.
    deployment : Deployment
    in_use : Placement
        The map that the host has so far; the balancer may look at it or not.
    """

    loads: np.ndarray
    deployment: Deployment
    in_use: Placement

    @property
    def totals(self) -> np.ndarray:
        """Loads over all steps, int64 [layers, experts]."""
        return np.asarray(self.loads.sum(axis=0) if self.loads.ndim == 3 else self.loads)

    def layer(self, number: int) -> Case:
        """Return one layer alone."""
        row, maps = self.loads[..., number : number + 1, :], self.in_use
        own = Placement(maps.phy2log[number : number + 1], maps.num_experts, maps.ranks[number : number + 1])
        return Case(row, self.deployment, own)


def random_loads(kind: str, layers: int, experts: int, steps: int, generator: np.random.Generator) -> np.ndarray:
    """Return loads of a kind, int64 [layers, experts] or, with more than one step, [steps, layers, experts].

    Parameters
    ----------
    kind : str
        One of :data:`KINDS`.
    layers, experts, steps : int
    generator : numpy.random.Generator
    """
    shape = (layers, experts)
    if kind == "small":
        found = generator.integers(0, 20, (steps, *shape))
        return found if steps > 1 else found[0]
    if kind == "one":
        base = np.zeros(shape)
        base[np.arange(layers), generator.integers(experts, size=layers)] = LARGEST
    elif kind == "zipf":
        ranks = generator.permuted(np.tile(np.arange(1, experts + 1), (layers, 1)), axis=1)
        base = 10 * LARGEST / ranks**1.1
    else:
        base = LARGEST / 3 * np.exp(generator.normal(size=shape)) if kind == "lognormal" else generator.uniform(1, LARGEST, shape)
        if kind == "half":
            base *= generator.permuted(np.tile(np.arange(experts) % 2, (layers, 1)), axis=1)
    drift = generator.uniform(0.5, 1.5, (steps, *shape))
    found = np.rint(base * drift).astype(np.int64)
    return found if steps > 1 else found[0]


def host_map(deployment: Deployment, layers: int, generator: np.random.Generator) -> Placement:
    """Return a map in use: the experts of every layer in a random order, the first of them again in the slots that are left.

    A GPU holds no expert twice unless it has more slots than there are experts.
    """
    order = generator.permuted(np.tile(np.arange(deployment.num_experts), (layers, 1)), axis=1)
    return Placement(order[:, np.arange(deployment.num_slots) % deployment.num_experts], deployment.num_experts)


def cases(policy: Policy, steps: int = 1, dead: bool = False, kinds: tuple[str, ...] = KINDS) -> Iterator[Case]:
    """Yield a case for every shape that a policy can be planned on and every kind of loads; the same ones on every machine.

    Parameters
    ----------
    policy : {"global", "hierarchical"}
    steps : int, default 1
    dead : bool, default False
        Whether as many GPUs are dead as can be.
    kinds : tuple of str, optional
        Of :data:`KINDS`; all by default.
    """
    for shape in SHAPES:
        if policy == "hierarchical" and shape.policy == "global":
            continue
        deployment = shape if policy == "hierarchical" else shape.as_global()
        generator = np.random.default_rng([SEED, shape.num_experts, shape.num_slots, shape.num_gpus, steps])
        if dead:
            most = (shape.num_slots - shape.num_experts) // shape.slots_per_gpu
            gone = generator.permutation(shape.num_gpus)[:most]
            deployment = replace(deployment, dead_gpus=tuple(sorted(gone.tolist())))
        for kind in kinds:
            loads = random_loads(kind, LAYERS, shape.num_experts, steps, generator)
            yield Case(loads, deployment, host_map(shape, LAYERS, generator))


def tied(loads: np.ndarray, counts: np.ndarray, deployment: Deployment) -> bool:
    """Return whether a tie can decide a layer: two groups weigh the same, or two experts with any counts that came into question.

    Parameters
    ----------
    loads : ndarray
        int64 [experts].
    counts : ndarray
        The most replicas that any of the compared maps has of every expert, int64 [experts].
    deployment : Deployment
    """
    sizes = np.concatenate([loads[counts + 1 >= c] / c for c in range(1, int(counts.max()) + 2)])
    if np.unique(sizes).size < sizes.size:
        return True
    groups = loads.reshape(deployment.num_groups, -1).sum(axis=1)
    return deployment.policy == "hierarchical" and np.unique(groups).size < groups.size
