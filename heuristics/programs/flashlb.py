"""FlashLB of vLLM-Ascend, compiled, as the original is: a tree search over replica counts with LPT as evaluation.

Of several windows the mean counts with its deviation: a GPU's risk is its mean load and ``DEVIATIONS`` standard deviations, the
experts' covariances among them, and the score of a plan is the mean over windows of the largest over the mean GPU load. One
window has no deviation: its risk is the load itself. The original's GPU loads and scores are float32, so are these.
"""

from __future__ import annotations

import math

import numpy as np

from eplb_gap.heuristics.compiled import descending, entry, kernel
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement

DEPTH = 4  # blocks of experts, hottest first
WIDTH = 8  # how far from the greedy's share of a block the search looks, each way
SMOOTHING = 1.0  # tokens added to every load of a window
SAMPLES = 64  # into which windows are merged, if there are more
DEVIATIONS = 0.6744897501960817  # of a normal distribution up to its upper quartile
EPSILON = 0.01  # tokens added to the two sides of a score


def plan(weight: np.ndarray, deployment: Deployment) -> Placement:
    """Plan on the windows of a history.

    The original keeps a layer's map where a replica finds no place on a GPU without its expert; here it then goes to the lightest
    GPU with room.

    Parameters
    ----------
    weight : ndarray [layers, experts] or [windows, layers, experts]
        Loads, of one window or of several, oldest first.
    deployment : Deployment
        Regular.
    """
    deployment.require_regular("flashlb")
    samples = _samples(np.asarray(weight if weight.ndim == 3 else weight[None], dtype=np.float64))
    windows, layers, experts = samples.shape
    mean = samples.mean(axis=0)
    phy2log = np.empty((layers, deployment.num_slots), np.int64)
    for layer in range(layers):
        own = np.ascontiguousarray(samples[:, layer])
        centred = own - mean[layer]
        # One window's covariances would be zeros that the search needs not look at.
        covariance = centred.T @ centred / (windows - 1) if windows > 1 else np.zeros((0, 0))
        variance = (centred**2).sum(axis=0) / (windows - 1) if windows > 1 else np.zeros(experts)
        _plan_layer(own, mean[layer], variance, covariance, deployment.num_gpus, phy2log[layer])
    return Placement(phy2log, deployment.num_experts)


def _samples(windows: np.ndarray) -> np.ndarray:
    """Return windows, each with the smoothing, merged into at most so many samples; the oldest that fill none are left out."""
    number = min(len(windows), SAMPLES)
    merged = len(windows) // number
    last = windows[len(windows) - number * merged :] + SMOOTHING
    return np.asarray(last.reshape(number, merged, *windows.shape[1:]).sum(axis=1))


@entry
def greedy_history(loads: np.ndarray, extra: int) -> np.ndarray:
    """Return the counts after 0, 1, ... ``extra`` replicas given to the largest load per replica, int64 [extra + 1, experts].

    Parameters
    ----------
    loads : ndarray
        float64 [experts].
    extra : int
    """
    history = np.ones((extra + 1, loads.size), dtype=np.int64)
    sizes = loads.copy()
    for n in range(1, extra + 1):
        history[n] = history[n - 1]
        hottest = np.argmax(sizes)
        history[n, hottest] += 1
        sizes[hottest] = loads[hottest] / history[n, hottest]
    return history


@entry
def _plan_layer(
    samples: np.ndarray, mean: np.ndarray, variance: np.ndarray, covariance: np.ndarray, num_gpus: int, slots: np.ndarray
) -> None:
    """Write the map of a layer, int64 [slots], GPU-major.

    Block after block, hottest first, the extra replicas are split between the block and all colder ones: from the greedy's
    split outwards, both sides by the greedy among themselves, and the split with the smallest score stays.
    """
    experts = mean.size
    risk = mean + DEVIATIONS * np.sqrt(variance)
    order = descending(risk)
    hot_first = risk[order]
    block = (experts + DEPTH - 1) // DEPTH
    extra = slots.size - experts
    counts = np.empty(experts, np.int64)
    counts[order] = greedy_history(hot_first, extra)[extra]
    for start in range(0, experts - block, block):
        inside, colder = order[start : start + block], order[start + block :]
        of_block = greedy_history(hot_first[start : start + block], extra)
        of_rest = greedy_history(hot_first[start + block :], extra)
        greedy = counts[inside].sum() - block
        best, least = greedy, np.inf
        for step in range(2 * WIDTH + 1):
            share = greedy + (step + 1) // 2 * (1 if step % 2 == 0 else -1)
            if 0 <= share <= extra:
                counts[inside], counts[colder] = of_block[share], of_rest[extra - share]
                _deploy(mean, variance, covariance, counts, num_gpus, slots)
                score = _score(samples, counts, num_gpus, slots)
                if score < least:
                    best, least = share, score
        extra -= best
        counts[inside], counts[colder] = of_block[best], of_rest[extra]
    _deploy(mean, variance, covariance, counts, num_gpus, slots)


@kernel
def _deploy(
    mean: np.ndarray, variance: np.ndarray, covariance: np.ndarray, counts: np.ndarray, num_gpus: int, slots: np.ndarray
) -> None:
    """Write a map: the largest replica next, to the GPU of least risk with it of those that do not hold its expert."""
    k = slots.size // num_gpus
    means, spreads = np.zeros(num_gpus, np.float32), np.zeros(num_gpus, np.float32)
    filled, last, shared = np.zeros(num_gpus, np.int64), np.full(num_gpus, -1), np.zeros(num_gpus)
    sizes = mean / counts
    for e in descending(sizes):
        own = variance[e] / counts[e] ** 2
        if covariance.size > 0:
            for g in range(num_gpus):
                shared[g] = own
                for slot in range(g * k, g * k + filled[g]):
                    shared[g] += 2 * covariance[e, slots[slot]] / counts[e] / counts[slots[slot]]
        for _ in range(counts[e]):
            best, lowest = -1, np.inf
            for g in range(num_gpus):
                if filled[g] == k or last[g] == e:
                    continue
                risk = means[g] + sizes[e]
                if covariance.size > 0:
                    risk += DEVIATIONS * math.sqrt(spreads[g] + shared[g])
                if risk < lowest:
                    best, lowest = g, risk
            if best < 0:
                for g in range(num_gpus):
                    if filled[g] < k and (best < 0 or means[g] < means[best]):
                        best = g
            slots[best * k + filled[best]] = e
            filled[best] += 1
            last[best] = e  # replicas of one expert are placed in a row
            means[best] = means[best] + sizes[e]
            spreads[best] = spreads[best] + shared[best]


@kernel
def _score(samples: np.ndarray, counts: np.ndarray, num_gpus: int, slots: np.ndarray) -> float:
    """Return the mean over samples of the largest over the mean GPU load."""
    k, total = slots.size // num_gpus, np.float32(0)
    for sample in samples:
        most = tokens = 0.0
        for g in range(num_gpus):
            load = 0.0
            for slot in range(g * k, g * k + k):
                load += sample[slots[slot]] / counts[slots[slot]]
            tokens += load
            most = max(most, load)
        total += np.float32((most * num_gpus + EPSILON) / (tokens + EPSILON))
    return float(total) / len(samples)
