"""The two-slot engine: agreement with the oracle, certificates the kernel accepts, limits and interrupts."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
from known import FLASHLB

from eplb_gap.experiments.loads.random_instances import flat_instances
from eplb_gap.experiments.loads.random_instances import loads as small_loads
from eplb_gap.experiments.loads.synthetic import family_loads
from eplb_gap.problem import InputError, Instance
from eplb_gap.problem.bounds import pairing_tree
from eplb_gap.problem.bounds.bounds import Bound
from eplb_gap.problem.bounds.pairing_dual import pairing_value
from eplb_gap.problem.bounds.pairing_tree import tree_value
from eplb_gap.problem.proofs import trust
from eplb_gap.solvers.compact import native
from eplb_gap.solvers.engine import Finding, Incumbent, Limits, drive
from eplb_gap.solvers.engines import pairing
from eplb_gap.solvers.engines.count_annealing import anneal_counts
from eplb_gap.solvers.engines.need_annealing import anneal_need, annealed
from eplb_gap.solvers.engines.need_model import Relaxation
from eplb_gap.solvers.engines.oracle import best_map

SHAPES = [(2, 4, 2), (3, 4, 2), (3, 6, 3), (4, 6, 3), (5, 6, 3), (4, 8, 4), (6, 8, 4), (1, 2, 1), (5, 10, 5), (8, 10, 5)]


def lognormal(experts: int, slots: int, sigma: float, seed: int) -> Instance:
    """Return an instance with lognormal loads of sum 1e6."""
    values = np.exp(sigma * np.random.default_rng(seed).normal(size=experts))
    return Instance(tuple(int(w) for w in np.maximum(1, np.rint(values / values.sum() * 10**6))), slots, slots // 2)


def findings(instance: Instance, seconds: float = 20.0, **limits: float) -> tuple[Incumbent, list[Finding]]:
    """Run the engine to its end; return the incumbent and everything that was yielded."""
    incumbent, found = Incumbent(instance), []

    def recorded(instance: Instance, incumbent: Incumbent, limits: Limits):  # type: ignore[no-untyped-def]
        for finding in pairing.search(instance, incumbent, limits):
            found.append(finding)
            yield finding

    drive(recorded, incumbent, Limits(time.monotonic() + seconds, **limits), lambda: None)  # type: ignore[arg-type]
    return incumbent, found


def pairing_instances(count: int, seed: int) -> list[Instance]:
    """Return small instances of two slots per GPU, duplicates both ways, among them all-zero and all-equal loads."""
    found = flat_instances(count, seed, SHAPES)
    generator = np.random.default_rng(seed)
    for experts, slots, gpus in SHAPES[:7]:
        found += [Instance((0,) * experts, slots, gpus), Instance((7,) * experts, slots, gpus, "forbidden")]
        hot = (5000, *small_loads(experts - 1, generator))
        found += [Instance(hot, slots, gpus), Instance(hot, slots, gpus, "forbidden")]
    return found


def test_agreement_with_the_oracle() -> None:
    proven = 0
    instances = pairing_instances(60, seed=21)
    for instance in instances:
        optimum = instance.makespan(best_map(instance))
        incumbent, found = findings(instance)
        assert incumbent.upper is not None
        assert incumbent.bound.value <= optimum <= incumbent.upper, instance
        for finding in found:
            if isinstance(finding, Bound):
                assert finding.value <= optimum, (instance, finding)
            if isinstance(finding, Bound) and finding.kind == "pairing dual":
                assert pairing_value(instance, json.loads(json.dumps(finding.witness))) == finding.value
        if instance.duplicates == "allowed":
            assert incumbent.proven, instance
        proven += incumbent.proven
    assert proven > 0.9 * len(instances)


def test_flashlb_example() -> None:
    incumbent, _ = findings(FLASHLB)
    assert incumbent.upper == incumbent.bound.value == Fraction(590, 3)


@pytest.mark.parametrize("sigma", [0.6, 1.0])
def test_proves_medium_instances(sigma: float) -> None:
    incumbent, found = findings(lognormal(64, 72, sigma, 3))
    assert incumbent.proven
    assert all(
        pairing_value(incumbent.instance, f.witness) == f.value
        for f in found
        if isinstance(f, Bound) and f.kind == "pairing dual"
    )


def test_nothing_rests_on_a_claim_where_the_own_search_ends() -> None:
    trees = 0
    for seed in range(5):
        incumbent, found = findings(lognormal(32, 48, 0.6, seed))
        assert incumbent.proven
        bounds = [f for f in found if isinstance(f, Bound)]
        assert {trust(bound) for bound in bounds} == {"recomputed"}
        for bound in bounds:
            if bound.kind == "pairing tree":
                trees += 1
                assert tree_value(incumbent.instance, json.loads(json.dumps(bound.witness))) == bound.value
    assert trees


def test_a_tree_that_ends_before_any_row_is_rounded_is_whole() -> None:
    loads = family_loads("ln1.2", 128, 10**6, 300)
    incumbent, _ = findings(Instance(tuple(loads.tolist()), 160, 80))
    assert incumbent.proven and incumbent.bound.kind == "pairing tree"
    assert tree_value(incumbent.instance, incumbent.bound.witness) == incumbent.bound.value == 13365


def test_closing_claims_are_confirmed_where_the_own_search_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "search_at", lambda *arguments: None)
    claims = []
    for seed in range(5):
        incumbent, found = findings(lognormal(32, 48, 0.6, seed))
        assert incumbent.proven
        claims += [f for f in found if isinstance(f, Bound) and trust(f) == "solver" and f.value == incumbent.upper]
    assert claims
    for claim in claims:
        assert claim.witness["solver"] == "HiGHS"
        assert claim.witness["confirmed"]["presolve"] != claim.witness["parameters"]["presolve"]
        json.dumps(claim.witness)


def test_same_seed_same_findings() -> None:
    instance = lognormal(32, 40, 0.6, 1)
    assert findings(instance, seed=4)[1] == findings(instance, seed=4)[1]


def test_fold_is_legal_and_repaired_where_duplicates_are_forbidden() -> None:
    generator = np.random.default_rng(9)
    for _ in range(300):
        gpus = int(generator.integers(2, 7))
        experts = int(generator.integers(2, 2 * gpus + 1))
        counts = [1] * experts
        while sum(counts) < 2 * gpus:
            free = [e for e in range(experts) if counts[e] < gpus]
            counts[generator.choice(free)] += 1
        instance = Instance(small_loads(experts, generator), 2 * gpus, gpus, "forbidden")
        slots = pairing.fold(instance, counts)
        assert [slots.count(e) for e in range(experts)] == counts
        assert all(slots[i] != slots[i + 1] for i in range(0, 2 * gpus, 2))


def test_starts_from_the_incumbent_and_keeps_the_target() -> None:
    instance = lognormal(64, 72, 0.6, 0)
    best = findings(instance)[0]
    assert best.slots is not None
    warm = Incumbent(instance)
    warm.offer_map(best.slots)
    drive(pairing.search, warm, Limits(time.monotonic() + 20, target_gap=0.01), lambda: None)
    assert warm.upper == best.upper
    assert warm.gap <= 0.01


def test_deadline() -> None:
    instance = lognormal(256, 288, 0.3, 0)
    findings(lognormal(8, 10, 0.3, 0))
    started = time.monotonic()
    incumbent, _ = findings(instance, seconds=1.5)
    assert time.monotonic() - started < 7
    assert incumbent.upper is not None
    assert 0 < incumbent.gap < 0.1
    assert list(pairing.search(instance, Incumbent(instance), Limits(time.monotonic() - 1))) == []


def test_interrupt() -> None:
    instance = lognormal(256, 288, 0.3, 0)
    timer = threading.Timer(1.0, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    started = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        drive(pairing.search, Incumbent(instance), Limits(started + 60), lambda: None)
    assert time.monotonic() - started < 10


def test_annealing_keeps_the_best_counts_it_met() -> None:
    loads, counts = np.array([4.0, 3.0, 1.0, 0.5, 0.5]), np.array([1, 1, 2, 3, 1])
    owners = np.array([0, 1, 2, 2, 4, 3, 3, 3])
    best = anneal_counts(loads, counts, owners, 4, 0.0, 2000, 1)
    sizes = sorted((w / c for w, c in zip(loads, counts, strict=True) for _ in range(c)), reverse=True)
    assert counts.sum() == 8
    assert best == max(a + b for a, b in zip(sizes[:4], sizes[::-1], strict=False))
    assert best < 4.0 + 1 / 6


def test_annealing_towards_a_threshold_reports_what_is_missing() -> None:
    met = 0
    for seed in range(6):
        instance = lognormal(8, 10, 0.5, seed)
        best = instance.makespan(best_map(instance))
        loads = np.array(instance.loads)
        for threshold in (best, best - Fraction(1, 10**6)):
            relaxation = Relaxation(instance, threshold, Limits(time.monotonic() + 10))
            if relaxation.refuted:
                continue
            counts = annealed(relaxation.remaining(), loads, np.ones(8, dtype=np.int64), 10, 20_000, seed)
            if counts is None:
                continue
            assert counts.sum() == 10
            # Counts are within the threshold exactly if every big replica has a small companion of its own.
            within = instance.makespan(pairing.fold(instance, counts.tolist())) <= threshold
            assert not within or threshold == best
            met += within
    assert met >= 4


def test_the_kernel_of_the_annealing_counts_what_its_columns_miss() -> None:
    generator = np.random.default_rng(5)
    for _ in range(60):
        experts, rows = int(generator.integers(2, 9)), int(generator.integers(1, 12))
        widths = generator.integers(1, 5, size=experts)
        first = np.concatenate([[0], np.cumsum(widths)])
        count = np.concatenate([np.arange(1, width + 1) for width in widths])
        row, value = generator.integers(0, rows + 1, size=count.size), count * generator.choice([-1, 1, 9], size=count.size)
        chosen = first[:-1] + generator.integers(0, widths)
        total = count[chosen].sum()
        # Moves are few, so that some runs end before, and some after, rows have become dearer.
        missing = anneal_need(first, count, row, value, rows, chosen, int(generator.choice([0, 50, 45_000])), 3)
        assert count[chosen].sum() == total
        stock = [int(value[chosen][row[chosen] <= j].sum()) for j in range(rows)]
        assert missing == sum(max(0, -entry) for entry in stock)


def test_a_tree_beyond_the_limits_leaves_the_weaker_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing_tree, "MAX_TEXT", 10)
    kinds = set()
    for seed in range(2):
        incumbent, found = findings(lognormal(32, 48, 0.6, seed), seconds=1.5)
        assert incumbent.upper is not None
        kinds |= {f.kind for f in found if isinstance(f, Bound)}
    assert "pairing tree" not in kinds
    assert "pairing dual" in kinds


def test_other_shapes_and_old_solvers_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = Instance((1, 2, 3), 6, 2)
    with pytest.raises(InputError, match="has 3 slots; the pairing engine needs 2"):
        list(pairing.search(instance, Incumbent(instance), Limits(math.inf)))
    monkeypatch.setattr(native.metadata, "version", lambda name: "1.14.0")
    with pytest.raises(RuntimeError, match=r"highspy is 1\.14\.0"):
        list(pairing.search(FLASHLB, Incumbent(FLASHLB), Limits(math.inf)))


def test_nothing_is_printed_and_the_backend_is_imported_late() -> None:
    code = (
        "import sys, time; from eplb_gap.problem.instance import Instance; from eplb_gap.solvers.engines import pairing\n"
        "from eplb_gap.solvers.engine import Incumbent, Limits\n"
        "assert 'highspy' not in sys.modules\n"
        "i = Instance((600, 560, 120, 120, 20, 10, 10, 10), 16, 8)\n"
        "list(pairing.search(i, Incumbent(i), Limits(time.monotonic() + 60)))\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
