"""Interpreted kernels give what compiled ones give, to the bit, and a call moves from one form to the other."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.heuristics.compiled import ascending, below, descending, entry, random, seed_random
from eplb_gap.heuristics.environment import INTERPRET
from eplb_gap.heuristics.planner import fast
from eplb_gap.heuristics.serving import sample_average, split_placement, token_split
from eplb_gap.heuristics.tables import log2phy_and_counts
from eplb_gap.heuristics.tiers import CHEAP, DEAR, KERNELS, Ready, TieredKernel, interpreted, tiered
from eplb_gap.problem import Deployment, Placement
from eplb_gap.solvers.engines import first_pass

SHAPES = [Deployment(16, 24, 8, num_nodes=2, num_groups=4), Deployment(24, 32, 8), Deployment(12, 24, 4)]


@entry
def drawn(seed, limits, found):
    seed_random(seed)
    for i in range(limits.size):
        found[2 * i], found[2 * i + 1] = below(limits[i]), random()


@entry
def sorted_both(values, up):
    ascending(values, up)
    return descending(values)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 1000), min_size=1, max_size=200))
def test_random_numbers_are_the_same_in_both_forms(seed, limits):
    one, other = np.empty(2 * len(limits)), np.empty(2 * len(limits))
    drawn(seed, np.array(limits), one)
    interpreted(drawn)(seed, np.array(limits), other)
    assert one.tolist() == other.tolist()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=80))
def test_orders_are_sorted_and_those_of_ties_fixed(values):
    array, up, again = np.array(values, dtype=float), np.empty(len(values), np.int64), np.empty(len(values), np.int64)
    down = sorted_both(array, up)
    assert down.tolist() == np.argsort(-array, kind="stable").tolist()
    assert array[up].tolist() == sorted(values)
    assert sorted(up) == list(range(len(values)))
    assert interpreted(sorted_both)(array, again).tolist() == down.tolist()
    assert again.tolist() == up.tolist()


@pytest.fixture
def as_python(monkeypatch):
    """Interpret all tiered kernels, whatever the disk holds; start no process."""
    monkeypatch.delenv(INTERPRET)
    monkeypatch.setattr(TieredKernel, "found", lambda self: False)
    monkeypatch.setattr("eplb_gap.heuristics.tiers._start_compiler", lambda kernels: 0)
    monkeypatch.setattr("eplb_gap.heuristics.tiers._later", set())

    def run(kernel, *arguments):
        monkeypatch.setattr(kernel, "is_compiled", False)
        return kernel(*arguments)

    return run


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["hot", "ties"])
def test_planners_make_the_same_maps_in_both_forms(as_python, monkeypatch, shape, kind):
    generator = np.random.default_rng(3)
    history = generator.integers(0, 4, (3, 2, shape.num_experts))
    if kind == "hot":
        history = generator.poisson(np.exp(1.5 * generator.normal(size=history.shape)) * 300)
    kernels = [kernel for kernel in KERNELS if "test_" not in kernel.module]

    def everything():
        placement = fast.plan(history[-1], shape)
        return [
            placement.phy2log,
            placement.ranks,
            fast.plan(history[-1], shape, effort="split").phy2log,
            sample_average.plan(history, shape, trials=3).phy2log,
            token_split.optimal_split(placement, history[-1], shape).shares,
            split_placement.plan(history[-1], shape, trials=20).phy2log,
            *(first_pass.first_pass(row, shape, 0.0, 0.05, 1).slots for row in history[-1]),
            *log2phy_and_counts(placement),
        ]

    for kernel in kernels:
        monkeypatch.setattr(kernel, "is_compiled", False)
    slow = everything()
    assert not any(kernel.is_compiled for kernel in kernels)
    for kernel in kernels:
        kernel.compile()
    for one, other in zip(slow, everything(), strict=True):
        assert one.tolist() == other.tolist()
    # A call that gave up half-way has already written a part of its results.
    for kernel in kernels:
        monkeypatch.setattr(kernel, "is_compiled", False)
    looks = []
    monkeypatch.setattr(TieredKernel, "found", lambda self: looks.append(self) or looks.count(self) > 2)
    monkeypatch.setattr("eplb_gap.heuristics.tiers.GLANCE", 0.0)
    for one, other in zip(slow, everything(), strict=True):
        assert one.tolist() == other.tolist()
    assert sum(kernel.is_compiled for kernel in kernels) >= 3


@tiered("(i8[::1], i8)")
def walk(found, steps):
    seed_random(7)
    for _ in range(steps):
        if random() < 0.5:
            found[0] += 1


def test_a_call_gives_up_interpreting_when_the_compiled_form_is_there(as_python, monkeypatch):
    one, other = np.array([5]), np.array([5])  # the walk goes on from what it is handed
    as_python(walk, one, 3000)
    looks = []
    monkeypatch.setattr(TieredKernel, "found", lambda self: looks.append(0) or len(looks) > 2)
    monkeypatch.setattr("eplb_gap.heuristics.tiers.GLANCE", 0.0)
    as_python(walk, other, 3000)
    assert len(looks) == 3
    assert walk.is_compiled
    assert one.tolist() == other.tolist()


CLOCK = [0.0]


def waits(seconds):
    CLOCK[0] += seconds


def test_dear_calls_are_compiled_at_once_and_others_later(as_python, monkeypatch):
    started, later = [], set()
    monkeypatch.setattr("eplb_gap.heuristics.tiers._start_compiler", lambda kernels: started.append(kernels) or 1)
    monkeypatch.setattr("eplb_gap.heuristics.tiers._later", later)
    monkeypatch.setattr("eplb_gap.heuristics.tiers.KERNELS", [])
    monkeypatch.setattr(
        "eplb_gap.heuristics.tiers.time", SimpleNamespace(perf_counter=lambda: CLOCK[0], thread_time=lambda: CLOCK[0])
    )
    kernel = TieredKernel(waits, "(f8,)")
    kernel(CHEAP / 2)
    assert (started, later) == ([], set())
    kernel(CHEAP)
    assert (started, later) == ([], {kernel})
    kernel(DEAR)
    assert (started, later) == ([[kernel]], set())
    assert not issubclass(Ready, Exception)  # no handler of errors may swallow it


def test_where_no_process_can_be_started_the_next_call_compiles(as_python, monkeypatch):
    kernel = TieredKernel(waits, "(f8,)")
    monkeypatch.undo()
    monkeypatch.delenv(INTERPRET)
    monkeypatch.setattr("eplb_gap.heuristics.tiers.KERNELS", [])
    monkeypatch.setattr("eplb_gap.heuristics.tiers.os.posix_spawn", _no_process)
    assert not kernel.found()
    kernel.begin()
    assert kernel.found()


def _no_process(*arguments, **options):
    raise FileNotFoundError


def test_a_fresh_process_answers_without_compiling(tmp_path):
    code = """
from eplb_gap.heuristics import rebalance, tiers
from eplb_gap.problem import Deployment
rebalance([[5, 4, 3, 2, 1, 0]], Deployment(6, 8, 4))
assert not any(kernel.is_compiled for kernel in tiers.KERNELS)
"""
    environment = {name: value for name, value in os.environ.items() if name != INTERPRET}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert not list(tmp_path.rglob("*.nbi"))


def test_another_process_compiles_what_this_one_then_loads(tmp_path):
    kernel = "from eplb_gap.heuristics.tiers import tiered\n@tiered('(f8,)')\ndef doubled(value):\n    return 2 * value\n"
    (tmp_path / "own.py").write_text(kernel)
    use = """
import time
from own import doubled
assert doubled(2.0) == 4.0 and not doubled.is_compiled
doubled.begin()
while not doubled.found():
    time.sleep(0.05)
assert doubled(2.0) == 4.0 and doubled.is_compiled
assert sum(doubled.kernel.stats.cache_hits.values()) == 1
"""
    environment = {name: value for name, value in os.environ.items() if name != INTERPRET}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path / "cache")
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    subprocess.run([sys.executable, "-c", use], check=True, env=environment, timeout=120)


def test_tables_of_wrong_ranks_are_numpys_errors_and_filler_is_no_replica():
    placement = Placement([[0, 1, 0, 0]], 2, [[0, 0, 1, -1]])
    table, counts = log2phy_and_counts(placement)
    assert table.tolist() == placement.log2phy().tolist() == [[[0, 2], [1, -1]]]
    assert counts.tolist() == placement.counts().tolist() == [[2, 1]]
    with pytest.raises(IndexError):
        log2phy_and_counts(Placement([[0, 1]], 2, [[0, 5]]))
    with pytest.raises((IndexError, ValueError)):
        log2phy_and_counts(Placement([[0, 3]], 2))
