"""The exact-cover search: oracle and CP-SAT agree with it, its bounds are true when it is stopped, its parts do what they say."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
from known import BY_HAND, PUBLISHED

from eplb_gap.experiments.loads.random_instances import flat_instances
from eplb_gap.problem.bounds import exhausted
from eplb_gap.problem.bounds.bounds import Bound
from eplb_gap.problem.bounds.exhausted import replayed_value
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.compact import cpsat
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engine import Incumbent, Limits, drive
from eplb_gap.solvers.engines import exact_cover, oracle
from eplb_gap.solvers.engines.gpu_contents import enumerate_patterns


def lognormal(experts: int, slots: int, gpus: int, sigma: float, seed: int, duplicates: str = "allowed") -> Instance:
    values = np.exp(sigma * np.random.default_rng(seed).normal(size=experts))
    loads = np.maximum(1, np.rint(values / values.sum() * 1e5)).astype(int)
    return Instance(tuple(loads.tolist()), slots, gpus, duplicates)


HARD = lognormal(32, 48, 16, 0.3, 0)
HARD_24 = lognormal(16, 24, 8, 1.0, 5)


def solved(instance: Instance, start: bool = False, engine=exact_cover.search) -> Incumbent:
    incumbent = Incumbent(instance)
    if start:
        incumbent.offer_map(greedy_map(instance))
    drive(engine, incumbent, Limits(time.monotonic() + 30), lambda: None)
    return incumbent


TWELVE_SLOTS = flat_instances(16, seed=13, shapes=[(8, 12, 4), (9, 12, 3), (10, 12, 4), (9, 12, 6)])


@pytest.mark.parametrize("instance", flat_instances(180, seed=11) + TWELVE_SLOTS, ids=lambda i: i.digest)
def test_agrees_with_the_oracle(instance: Instance) -> None:
    incumbent = solved(instance)
    assert incumbent.proven
    assert incumbent.upper == instance.makespan(oracle.best_map(instance))


@pytest.mark.parametrize("instance", flat_instances(60, seed=12), ids=lambda i: i.digest)
def test_the_search_alone_agrees_with_the_oracle(instance: Instance) -> None:
    """Started from a poor map and no bound at all, so that neither annealing nor closed forms do the work."""
    best = instance.makespan(oracle.best_map(instance))
    upper, lower = Fraction(instance.total + 1), Fraction(0)
    maps = []
    for finding in exact_cover.prove(instance, lower, upper, Limits(time.monotonic() + 30)):
        if isinstance(finding, Bound):
            assert lower <= finding.value <= best
            assert replayed_value(instance, finding.witness) == finding.value
            lower = finding.value
        else:
            maps.append(instance.makespan(finding))
    assert lower == best == min(maps)
    assert maps == sorted(maps, reverse=True)


def awkward(number: int) -> list[Instance]:
    """Hot, tied, zero and equal loads, one replica each and few slots to spare: where counts are forced or bounds are strong."""
    generator, found = np.random.default_rng(17), []
    shapes = [(8, 8, 4), (9, 9, 3), (8, 8, 2), (7, 8, 4), (8, 9, 3), (6, 8, 2), (5, 9, 3), (4, 8, 4)]
    for i in range(number):
        experts, slots, gpus = shapes[i % len(shapes)]
        kind = i // len(shapes) % 5
        loads = generator.integers(0 if kind == 1 else 1, 40, experts)
        loads[0] *= 10 ** int(generator.integers(1, 6)) if kind == 0 else 1
        loads[: experts // 2] *= kind != 2  # zeros
        loads = np.full(experts, 7) if kind == 3 else loads // 10 * 10 if kind == 4 else loads
        duplicates = "forbidden" if generator.integers(2) and slots // gpus <= experts else "allowed"
        found.append(Instance(tuple(loads.tolist()), slots, gpus, duplicates))
    return found


@pytest.mark.parametrize("instance", awkward(80), ids=lambda i: f"{i.num_slots}-{i.digest}")
def test_agrees_with_the_oracle_on_awkward_loads_and_is_replayed(instance: Instance) -> None:
    best = instance.makespan(oracle.best_map(instance))
    for engine in (exact_cover.search, oracle.search):
        incumbent = solved(instance, engine=engine)
        assert incumbent.proven
        assert incumbent.upper == best
        if incumbent.bound.kind == "replayed search":
            assert replayed_value(instance, incumbent.bound.witness) == best
        else:
            assert incumbent.bound.kind in ("mean", "apportionment", "slot counting", "forced counts")


@pytest.mark.parametrize(
    "instance",
    [
        Instance((46, 1, 9, 3, 4, 5, 1, 5, 3, 166, 8, 4), 16, 4),
        Instance((46, 1, 9, 3, 4, 5, 1, 5, 3, 166, 8, 4), 16, 4, "forbidden"),
        Instance((3, 2, 5, 9, 19, 7, 3, 3, 13, 31, 8, 2), 16, 4, "forbidden"),
        Instance((40, 40, 40, 30, 30, 30, 20, 20, 10, 10, 10, 5), 16, 4),
        Instance((7, 1, 1, 1, 2, 2, 3, 0, 0, 1, 1, 2, 2, 1, 1, 1), 24, 8, "forbidden"),
        Instance((90, 12, 7, 5, 5, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0), 24, 8),
    ],
    ids=lambda i: i.digest,
)
def test_agrees_with_cpsat(instance: Instance) -> None:
    exact = solved(instance, start=True)
    assert exact.proven
    claimed = Incumbent(instance)
    claimed.offer_map(greedy_map(instance))
    drive(cpsat.search, claimed, Limits(time.monotonic() + 30), lambda: None)
    assert claimed.proven
    assert exact.upper == claimed.upper


@pytest.mark.parametrize("duplicates", ["allowed", "forbidden"])
@pytest.mark.parametrize("seed", range(4))
def test_proves_24_slots(seed: int, duplicates: str) -> None:
    instance = lognormal(16, 24, 8, 0.6, seed, duplicates)
    incumbent = solved(instance, start=True)
    assert incumbent.proven
    assert incumbent.bound.kind == "replayed search"
    assert Fraction(incumbent.bound.witness["threshold"]) < incumbent.upper
    assert replayed_value(instance, incumbent.bound.witness) == incumbent.upper


@pytest.mark.parametrize("many", [-1, 40_000])
def test_thresholds_from_below_and_above_in_turn_prove_the_same(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With turns from the first node on, and with so few patterns allowed that only lower thresholds are searched."""
    monkeypatch.setattr(exact_cover, "NODES_ABOVE", -1)
    monkeypatch.setattr(exact_cover, "FEW_PATTERNS", many)
    built: list[Fraction] = []
    make = exact_cover.CoverSearch.__init__

    def noted(self: exact_cover.CoverSearch, instance: Instance, threshold: Fraction) -> None:
        built.append(threshold)
        make(self, instance, threshold)

    monkeypatch.setattr(exact_cover.CoverSearch, "__init__", noted)
    for instance in (HARD_24, *TWELVE_SLOTS[:4]):
        best = solved(instance).upper
        built.clear()
        lower, upper = instance.mean, instance.makespan(greedy_map(instance))
        bounds = []
        for finding in exact_cover.prove(instance, lower, upper, Limits(time.monotonic() + 30)):
            if isinstance(finding, Bound):
                bounds.append(finding)
                assert lower <= finding.value <= best
                lower = finding.value
            else:
                assert instance.makespan(finding) < upper
                upper = instance.makespan(finding)
        assert lower == upper == best
        if best > instance.mean:
            assert replayed_value(instance, bounds[-1].witness) == best
        assert instance is not HARD_24 or any(a > b for a, b in itertools.pairwise(built))
        assert instance is not HARD_24 or any(threshold < best for threshold in built[:-1])


@pytest.mark.parametrize(("instance", "value"), BY_HAND + PUBLISHED)
def test_known_optima(instance: Instance, value: Fraction) -> None:
    for start in (False, True):
        incumbent = solved(instance, start)
        assert incumbent.proven
        assert incumbent.upper == value


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.1, 0.5])
def test_a_search_stopped_early_claims_nothing_false(seconds: float) -> None:
    instance = lognormal(24, 32, 8, 1.2, 1)
    best = solved(instance)
    assert best.proven
    incumbent = Incumbent(instance)
    started = time.monotonic()
    drive(exact_cover.search, incumbent, Limits(started + seconds), lambda: None)
    assert time.monotonic() - started < seconds + 5
    assert incumbent.bound.value <= best.upper
    assert incumbent.upper is None or incumbent.upper >= best.upper


def test_it_does_the_same_every_time() -> None:
    instance = lognormal(16, 24, 8, 1.0, 5)
    first, second = (list(exact_cover.search(instance, Incumbent(instance), Limits(time.monotonic() + 30))) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "instance",
    [
        Instance(tuple(range(1, 129)), 256, 16),  # too many patterns
        Instance((10**14, 10**13, 10**12, 10**11), 24, 4),  # scaled loads do not fit
    ],
)
def test_out_of_reach_it_ends_without_a_proof(instance: Instance) -> None:
    incumbent = Incumbent(instance)
    started = time.monotonic()
    drive(exact_cover.search, incumbent, Limits(started + 30), lambda: None)
    assert time.monotonic() - started < 10
    assert incumbent.bound.value <= incumbent.upper


def test_every_kernel_is_compiled_before_the_clock_starts() -> None:
    code = (
        "from eplb_gap.heuristics.kernels.annealing import anneal\n"
        "from eplb_gap.solvers.engines import exact_cover, gpu_contents, neighbourhood\n"
        "exact_cover.compile_kernels()\n"
        "kernels = anneal, neighbourhood.improve, gpu_contents.enumerate_patterns, exact_cover.advance\n"
        "assert all(kernel.signatures for kernel in kernels), [kernel.__name__ for kernel in kernels if not kernel.signatures]\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_interrupt_ends_a_search() -> None:
    started = time.monotonic()
    threading.Timer(0.5, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        drive(exact_cover.search, Incumbent(HARD), Limits(started + 30), lambda: None)
    assert time.monotonic() - started < 10


def test_the_engine_knows_what_a_replay_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = lognormal(16, 24, 8, 1.0, 5)
    bound = solved(instance).bound
    cover = exact_cover.CoverSearch(instance, Fraction(bound.witness["threshold"]))
    while cover.status == 0:
        cover.run()
    work = int(cover.state.control[5])
    monkeypatch.setattr(exhausted, "MAX_WORK", work)
    assert replayed_value(instance, bound.witness) == bound.value
    monkeypatch.setattr(exhausted, "MAX_WORK", work - 1)
    with pytest.raises(InputError, match=f"more than {work - 1} patterns looked at"):
        replayed_value(instance, bound.witness)
    monkeypatch.setattr(exact_cover, "MAX_WORK", work - 1)
    assert cover.branchings() is None
    monkeypatch.setattr(exact_cover, "MAX_REPLAYED_NODES", 0)
    unlogged = solved(instance).bound
    assert (unlogged.kind, unlogged.value) == ("exhausted search", bound.value)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_patterns_are_all_multisets_in_the_band(k: int) -> None:
    generator = np.random.default_rng(k)
    size = np.sort(generator.integers(1, 30, 14))[::-1].astype(np.int64)
    expert, most = generator.integers(0, 6, 14), generator.integers(1, 4, 14)
    found = np.empty((20_000, k), dtype=np.uint16)
    number = enumerate_patterns(size, expert, most, 10 * k, 17 * k, 10**7, found)
    expected = []
    for types in itertools.combinations_with_replacement(range(14), k):
        one_type = len({expert[t] for t in types}) == len(set(types))
        if one_type and all(types.count(t) <= most[t] for t in types) and 10 * k <= size[list(types)].sum() <= 17 * k:
            expected.append(types)
    assert sorted(map(tuple, found[:number].tolist())) == expected
    assert enumerate_patterns(size, expert, most, 10 * k, 17 * k, 10**7, found[: number - 1]) == -1
    if k > 2:
        assert enumerate_patterns(size, expert, most, 10 * k, 17 * k, 3, found) == -1
