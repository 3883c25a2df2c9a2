"""Two slots per GPU: exact without a GPU index, by the least number of replicas that a threshold needs.

For given counts, folding the sorted replicas (largest with smallest) is an optimal pairing. Over all counts, a placement
within T exists exactly if the conditions of :mod:`eplb_gap.problem.bounds.pairing_dual` can be met with at most S replicas: with
fewer, one more split of a small expert keeps them. Both sides of the conditions are linear in ``z[e, c]`` (expert e has c
replicas), and in the order of descending keys they are an inventory: small replicas enter, big ones leave, and the stock never
falls below 0. ::

    minimise    sum_{e, c} c z[e, c]
    sum_c z[e, c] = 1                                                   every expert has one count
    stock[j] = stock[j-1] + sum_{small in run j} c z - sum_{big in run j} c z >= 0

The engine narrows the interval between bound and makespan by probing thresholds. The linear relaxation of a probe is solved
first: a value above S refutes T, and its duals are a certificate that the kernel checks. Else its reduced costs, in integers,
rule out most counts, and an own branch and cut (:mod:`eplb_gap.solvers.engines.pairing_search`) looks for a tree that refutes T,
which the kernel checks as well, or for counts. Its fractional solutions, rounded, are where annealing towards the threshold
(:mod:`eplb_gap.solvers.engines.need_annealing`) starts from, over the counts that are left. HiGHS's own branch and bound looks
for maps; its word that there is none is a solver's claim, and kept only where the rows are too many for a tree.

With duplicates forbidden every bound stays valid, and maps are repaired by exchanging partners.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.problem.bounds.bounds import Bound, adams_counts, apportionment_bound, mean_bound
from eplb_gap.problem.bounds.pairing_dual import next_pair_sum, pairing_witness, previous_pair_sum
from eplb_gap.problem.bounds.pairing_tree import tree_value, tree_witness
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.proofs import trust
from eplb_gap.solvers.compact.native import checked_highspy
from eplb_gap.solvers.engine import ContradictionError, Engine, Finding, Incumbent, Limits
from eplb_gap.solvers.engines.count_annealing import anneal_counts
from eplb_gap.solvers.engines.need_annealing import annealed
from eplb_gap.solvers.engines.need_model import Inventory, Relaxation
from eplb_gap.solvers.engines.pairing_mip import Verdict, decide
from eplb_gap.solvers.engines.pairing_search import PairingSearch, search_at

COARSE, CLOSE, NEAR, FAR = Fraction(1, 10**5), Fraction(1, 10**4), Fraction(5, 10**4), Fraction(25, 10**4)
"""Gaps that change what is done."""
PART = 0.15
"""Part of the remaining counts that HiGHS tries first; only all of them can prove that there is no map."""
SLICE_SHARE, MAP_SHARE, PART_SHARE, PROOF_SHARE = 0.3, 0.15, 0.05, 0.4
"""Time for HiGHS on all counts, on all while maps come first, on a part, and for an own proof, relative to the time left."""
BRIEF, THOROUGH = 0.25, 0.02
"""Patience with rounded rows before maps are looked for, and after."""
MAX_NODES = 5_000
LEVELS = (0.0, 0.3, 0.6, 0.9)
FAR_SHARE, SHARE = Fraction(2, 5), Fraction(3, 5)
"""Where in the gap a probe is put while the gap is large, and when it is smaller."""
DESCENT = (Fraction(1, 10), Fraction(1, 5), Fraction(3, 10), Fraction(1, 5), Fraction(1, 2))
"""Parts of the gap below the best map at which annealing aims."""
WORTH_BRANCHING = 0.1
"""Branching gets its share of the time if the relaxation misses less than this."""
ROUNDED_STARTS = 6
BURST_STEPS, NEED_STEPS = 15 * 10**6, 10**8
"""Steps of a burst: moves times replicas, or times rows of the inventory."""
NEED_MOVES = 3_000
"""Moves per expert of a burst over the inventory, at most."""


def search(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield better maps and stronger bounds until they meet or the time is up.

    Parameters
    ----------
    instance : Instance
        With two slots per GPU.
    incumbent : Incumbent
        Its counts start the search.
    limits : Limits

    Raises
    ------
    InputError
        If a GPU has not two slots.
    RuntimeError
        If highspy is older than 1.15.1 or HiGHS fails.
    ContradictionError
        If a second run of HiGHS disproves its own first one.
    KeyboardInterrupt
        On Ctrl-C.
    """
    if instance.slots_per_gpu != 2:
        raise InputError(f"a GPU has {instance.slots_per_gpu} slots; the pairing engine needs 2")
    if limits.seconds_left > 0:
        yield from _Search(instance, incumbent, limits).run()


def fold(instance: Instance, counts: Sequence[int]) -> tuple[int, ...]:
    """Return a map of given counts: the largest replica with the smallest, the second largest with the second smallest, ...

    No pairing of these replicas has a smaller makespan. Where duplicates are forbidden, pairs of one expert, which only the
    middle can have, each exchange partners with the pair whose larger replica is smallest.

    Parameters
    ----------
    instance : Instance
        With two slots per GPU.
    counts : sequence of int [experts]
        Positive, with the slots as their sum, none above ``instance.max_count``.
    """
    order = sorted(range(instance.num_experts), key=lambda e: (-Fraction(instance.loads[e], counts[e]), e))
    replicas = [expert for expert in order for _ in range(counts[expert])]
    pairs = [[replicas[i], replicas[-1 - i]] for i in range(instance.num_gpus)]
    if instance.duplicates == "forbidden":
        _separate(pairs)
    return tuple(expert for pair in pairs for expert in pair)


def _separate(pairs: list[list[int]]) -> None:
    """Break up the pairs of one expert; an expert with at most one replica per GPU leaves enough pairs without it."""
    doubled = [pair for pair in pairs if pair[0] == pair[1]]
    if doubled:
        expert = doubled[0][0]
        # The pairs nest: the later one has the smaller larger replica.
        others = [pair for pair in reversed(pairs) if expert not in pair]
        for pair, other in zip(doubled, others, strict=False):
            pair[1], other[1] = other[1], pair[1]


@dataclass(frozen=True)
class _Claim:
    """A bound that rests on HiGHS's word, and the model that it called infeasible."""

    model: Inventory
    bound: Bound


class _Search:
    """The state of one search: the best map, the bound, and the thresholds that HiGHS could not decide in time."""

    def __init__(self, instance: Instance, incumbent: Incumbent, limits: Limits) -> None:
        self.instance, self.incumbent, self.limits = instance, incumbent, limits
        self.lower = incumbent.bound.value
        self.counts = adams_counts(instance.loads, instance.num_slots, instance.max_count)
        self.upper: Fraction | None = incumbent.upper
        self.undecided: list[Fraction] = []
        self.slice_factor = 1.0
        self.bursts = self.near_probes = 0
        self.unconfirmed: _Claim | None = None
        self.version = checked_highspy()

    def run(self) -> Iterator[Finding]:
        """Yield what the phases find: folds, the bisection of the relaxation, annealing, probes."""
        simple = max(mean_bound(self.instance), apportionment_bound(self.instance), key=lambda bound: bound.value)
        if simple.value > self.lower:
            self.lower = simple.value
            yield simple
        yield from self._take(self.counts)
        if self.incumbent.slots is not None:
            counted = Counter(self.incumbent.slots)
            yield from self._take([counted[e] for e in range(self.instance.num_experts)])
        yield from self._bisect()
        before = None
        while self._makespan != before:
            before = self._makespan
            yield from self._anneal(LEVELS)
        yield from self._probe_all()

    @property
    def _makespan(self) -> Fraction:
        assert self.upper is not None  # the fold of Adams' counts precedes every other step
        return self.upper

    @property
    def _open(self) -> bool:
        return self.lower < self._makespan and self.limits.seconds_left > 0

    def _take(self, counts: Sequence[int]) -> Iterator[Finding]:
        """Fold the counts; keep and yield the map if it is better."""
        slots = fold(self.instance, counts)
        value = self.instance.makespan(slots)
        if self.upper is None or value < self.upper:
            self.upper, self.counts = value, list(counts)
            self.undecided = [t for t in self.undecided if t < value]
            yield from self._hand_over(slots)

    def _raise(self, bound: Bound) -> Iterator[Finding]:
        if bound.value > self.lower:
            self.lower = bound.value
            self.undecided = [t for t in self.undecided if t >= bound.value]
            if trust(bound) != "solver":
                self.unconfirmed = None
            yield from self._hand_over(bound)

    def _certified(self, relaxation: Relaxation) -> Bound:
        threshold = relaxation.threshold
        return Bound(next_pair_sum(self.instance, threshold), "pairing dual", pairing_witness(threshold, relaxation.multipliers))

    def _below_upper(self) -> Fraction:
        """Return a threshold that only makespans below the best map's satisfy, and all of those."""
        before = previous_pair_sum(self.instance, self._makespan)
        return _inside(max(self.lower, before or self.lower), self._makespan)

    def _bisect(self) -> Iterator[Finding]:
        """Locate the largest threshold that the relaxation refutes; just below the best map first, which may end it all."""
        threshold = self._below_upper() if self._open else self._makespan
        loose = self._makespan
        while self._open and (loose - self.lower) > COARSE * self.lower:
            relaxation = Relaxation(self.instance, threshold, self.limits)
            if relaxation.refuted:
                yield from self._raise(self._certified(relaxation))
            elif relaxation.solved:
                loose = threshold
            if loose > self.lower:  # a refuted threshold can raise the bound to the next sum of a pair, which is beyond it
                threshold = _inside(self.lower, loose)

    def _anneal(self, levels: Sequence[float]) -> Iterator[Finding]:
        """Lower the best map by bursts from its counts, aiming at these levels between bound and makespan."""
        unit = float(self.instance.mean or 1)
        for level in levels:
            if not self._open or self._makespan - self.lower <= COARSE * self.lower:
                return
            tau = (float(self.lower) + level * float(self._makespan - self.lower)) / unit
            counts = np.array(self.counts, dtype=np.int64)
            self._burst(counts, tau)
            yield from self._take(counts.tolist())

    def _descend(self) -> Iterator[Finding]:
        """Lower the best map by annealing towards thresholds below it, until every one of :data:`DESCENT` has failed in turn."""
        failed = 0
        while self._open and self._makespan - self.lower > NEAR * self.lower and failed < len(DESCENT):
            before = self._makespan
            threshold = _inside(self.lower, before, share=1 - DESCENT[self.bursts % len(DESCENT)])
            relaxation = Relaxation(self.instance, threshold, self.limits)
            if relaxation.refuted:
                yield from self._raise(self._certified(relaxation))
            elif relaxation.solved:
                yield from self._anneal_need(relaxation.remaining(), np.array(self.counts), threshold)
            failed = failed + 1 if self._makespan == before else 0

    def _probe_all(self) -> Iterator[Finding]:
        while self._open:
            yield from self._descend()
            threshold = self._next_threshold() if self._open else None
            if threshold is None:
                if not self._open or not self._widen():
                    return
                continue
            relaxation = Relaxation(self.instance, threshold, self.limits)
            if relaxation.refuted:
                yield from self._raise(self._certified(relaxation))
                continue
            if not relaxation.solved:
                return
            yield from self._probe(relaxation)

    def _probe(self, relaxation: Relaxation) -> Iterator[Finding]:
        """Decide a threshold that the relaxation does not refute: own cuts, HiGHS for maps, own branch and cut, HiGHS again."""
        threshold, before = relaxation.threshold, self._makespan
        far = before - self.lower > NEAR * self.lower
        search = search_at(self.instance, threshold, relaxation.multipliers, self.limits)
        if search is not None:
            search.cut_root(self._slice(PROOF_SHARE), BRIEF)
            yield from self._concluded(search, threshold)
            if search.ended and not self._settled(threshold):
                self.undecided = sorted({*self.undecided, threshold})  # duplicates are forbidden and could not be repaired
            if search.ended:
                return
            yield from self._anneal_near(search, threshold, PART_SHARE * self.limits.seconds_left if far else 0.0)
            if self._settled(threshold):
                return
        verdict = self._ask(relaxation.remaining(PART), PART_SHARE, True)
        # While the gap is large and the relaxation far from refuting, a map is likelier than a proof, which has a later turn.
        maps_first = far and self.slice_factor == 1.0 and search is not None and search.missing >= WORTH_BRANCHING
        if verdict.counts is None and search is not None and not maps_first:
            if search.cut_root(self._slice(PROOF_SHARE), THOROUGH):
                search.branch(self._slice(PROOF_SHARE if search.missing < WORTH_BRANCHING else PART_SHARE), MAX_NODES)
            yield from self._concluded(search, threshold)
            if self._settled(threshold):
                return
        if verdict.counts is None and not (search is not None and search.ended):
            model = relaxation.remaining() if search is None else search.remaining()
            verdict = self._ask(model, MAP_SHARE if maps_first else SLICE_SHARE, far)
            if verdict.outcome == "infeasible":
                if search is not None:
                    # HiGHS has shown that a proof is what to look for: all the time left, if it ends the search.
                    closing = next_pair_sum(self.instance, threshold) >= self._makespan
                    search.branch(self.limits.deadline if closing else self._slice(PROOF_SHARE), MAX_NODES)
                    yield from self._concluded(search, threshold)
                    if not self._settled(threshold):
                        self.undecided = sorted({*self.undecided, threshold})  # what HiGHS alone has shown proves nothing
                    return
                yield from self._raise(self._claimed(model, threshold, self._parameters("off", self.limits.seed, far)))
                return
        if verdict.counts is not None:
            yield from self._take(self._filled(verdict.counts, threshold))
        if self._makespan < before:
            yield from self._anneal(LEVELS[:2])
        else:
            self.undecided = sorted({*self.undecided, threshold})

    def _ask(self, model: Inventory, share: float, searches: bool) -> Verdict:
        """Let HiGHS decide a model in a share of the time that is left.

        Its neighbourhood searches find maps while there is much to gain; near the end they keep it from the proof.
        """
        allowed = max(1.0, share * self.limits.seconds_left) * self.slice_factor
        return self._decide(model, self._parameters("off", self.limits.seed, searches), allowed)

    def _anneal_near(self, search: PairingSearch, threshold: Fraction, seconds: float) -> Iterator[Finding]:
        """Anneal counts that the relaxation's solution is rounded to, the threshold as aim: some, then more in this time."""
        model = search.remaining()
        generator = np.random.default_rng([self.limits.seed, self.bursts])
        ending = time.monotonic() + seconds
        for number in itertools.count():
            if self.limits.seconds_left <= 0 or self._makespan <= threshold:
                return
            if number >= ROUNDED_STARTS and time.monotonic() >= ending:
                return
            counts = search.rounded(generator, 0.5 if number else 0.0)
            yield from self._anneal_need(model, counts, threshold)

    def _anneal_need(self, model: Inventory, counts: np.ndarray, threshold: Fraction) -> Iterator[Finding]:
        """Anneal from these counts within a threshold's model; keep what is found if its map is better."""
        moves = min(NEED_STEPS // max(1, model.num_rows), NEED_MOVES * self.instance.num_experts)
        found = annealed(model, np.array(self.instance.loads), counts, self.instance.num_slots, moves, self._burst_seed())
        if found is not None:
            yield from self._take(found.tolist())

    def _burst(self, counts: np.ndarray, tau: float) -> float:
        """Anneal counts in place, aiming at tau, in units of the mean load; return their makespan."""
        unit = float(self.instance.mean or 1)
        loads = np.array([w / unit for w in self.instance.loads])
        order = np.argsort(-(loads / counts), kind="stable")
        owners = np.repeat(order, counts[order])
        moves = BURST_STEPS // self.instance.num_slots
        return float(anneal_counts(loads, counts, owners, self.instance.max_count, tau, moves, self._burst_seed()))

    def _burst_seed(self) -> int:
        self.bursts += 1
        return (self.limits.seed * 10007 + self.bursts) % 2**32

    def _slice(self, share: float) -> float:
        """Return the end of a part of the time that is left."""
        return time.monotonic() + max(1.0, share * self.limits.seconds_left) * self.slice_factor

    def _settled(self, threshold: Fraction) -> bool:
        return self.lower > threshold or self._makespan <= threshold

    def _concluded(self, search: PairingSearch, threshold: Fraction) -> Iterator[Finding]:
        """Yield what a search has proven or found."""
        if search.refuted:
            try:
                witness = tree_witness(threshold, search.proof())
                value = tree_value(self.instance, witness)
            except InputError:  # beyond the limits of what is written or read back: the bounds known so far stand
                return
            yield from self._raise(Bound(value, "pairing tree", witness))
        elif search.counts is not None:
            yield from self._take(self._filled(search.counts, threshold))
            yield from self._anneal(LEVELS[:2])

    def _claimed(self, model: Inventory, threshold: Fraction, parameters: dict[str, Any]) -> Bound:
        """Return the bound that HiGHS claims."""
        witness = {"solver": "HiGHS", "version": self.version, "parameters": parameters, "threshold": str(threshold)}
        bound = Bound(next_pair_sum(self.instance, threshold), "claim", witness)
        self.unconfirmed = _Claim(model, bound)
        return bound

    def _hand_over(self, finding: Finding) -> Iterator[Finding]:
        """Yield a finding that may end the search on a claim, after a second proof; on Ctrl-C the finding is not lost."""
        interrupted = False
        try:
            self._confirm()
        except KeyboardInterrupt:
            interrupted = True
        try:
            yield finding
        finally:
            if interrupted:
                raise KeyboardInterrupt

    def _confirm(self) -> None:
        """If the last claim ends the search, let HiGHS prove it again with other settings as far as the time allows.

        The settings of the second proof are added to the witness, which may have been handed over before a map met it.
        """
        claim = self.unconfirmed
        if claim is None or self._makespan > claim.bound.value * (1 + Fraction(self.limits.target_gap)):
            return
        self.unconfirmed = None
        witness = claim.bound.witness
        others = self._parameters("on", self.limits.seed + 1, False)
        verdict = self._decide(claim.model, others, self.limits.seconds_left)
        if verdict.outcome == "feasible":
            raise ContradictionError(
                f"instance {self.instance.digest}: HiGHS {self.version} calls {witness['threshold']} infeasible with "
                f"{witness['parameters']} and feasible with {others}"
            )
        if verdict.outcome == "infeasible":
            witness["confirmed"] = others

    def _parameters(self, presolve: str, seed: int, searches: bool) -> dict[str, Any]:
        return {
            "mip_heuristic_run_rins": searches,
            "mip_heuristic_run_rens": searches,
            "presolve": presolve,
            "random_seed": seed,
            "threads": self.limits.workers,
            "mip_rel_gap": 0.0,
            "mip_abs_gap": 0.999,  # the objective is integral
            "objective_target": self.instance.num_slots + 0.5,
        }

    def _decide(self, model: Inventory, parameters: dict[str, Any], seconds: float) -> Verdict:
        """Let HiGHS look for counts of at most S replicas, or claim that there are none."""
        return decide(model, self.instance.num_slots, parameters, min(seconds, self.limits.seconds_left))

    def _filled(self, counts: list[int], threshold: Fraction) -> list[int]:
        """Give the slots that a solution leaves to experts with small replicas, the largest such replica first."""
        instance = self.instance
        for _ in range(instance.num_slots - sum(counts)):
            sizes = [Fraction(w, c) for w, c in zip(instance.loads, counts, strict=True)]
            room = [e for e in range(instance.num_experts) if counts[e] < instance.max_count]
            small = [e for e in room if 2 * sizes[e] <= threshold]
            counts[max(small or room, key=lambda e: sizes[e])] += 1
        return counts

    def _next_threshold(self) -> Fraction | None:
        """Return the next threshold to probe; None if the undecided ones leave no other.

        Above the undecided thresholds maps are easier to find, below them proofs: both sides in turn.
        """
        below = self._below_upper()
        if not self.undecided:
            gap = (self._makespan - self.lower) / self.lower
            if gap <= NEAR:
                # The best map is often optimal; if it was not, halving the gap is quicker than one better map after the other.
                self.near_probes += 1
                if gap <= CLOSE or self.near_probes % 2:
                    return below
            share = FAR_SHARE if gap > FAR else SHARE
            return _inside(self.lower, self._makespan, share=share)
        highest, lowest = self.undecided[-1], self.undecided[0]
        options = []
        if below > highest:
            near = below - highest <= NEAR * self.lower / 4
            options.append(below if near else _inside(highest, below, share=Fraction(3, 4)))
        before = previous_pair_sum(self.instance, lowest)
        if before is not None and before >= self.lower:
            options.append(_inside(self.lower, before) if before > self.lower else self.lower)
        options = [t for t in options if t not in self.undecided]
        if not options:
            return None
        return options[len(self.undecided) % len(options)]

    def _widen(self) -> bool:
        """Forget the undecided thresholds and double the time for each; return whether that can help."""
        self.undecided = []
        self.slice_factor *= 2
        return self.slice_factor < 64


def _inside(low: Fraction, high: Fraction, share: Fraction = Fraction(1, 2)) -> Fraction:
    """Return a dyadic number of few digits in ``[low, high)``, near ``low + share (high - low)``."""
    bits = max(0, 4 + math.ceil(1 / (high - low)).bit_length())
    return max(low, Fraction(math.floor((low + share * (high - low)) * 2**bits), 2**bits))


ENGINE = Engine("pairing", search, range(2, 3), exact=False)
