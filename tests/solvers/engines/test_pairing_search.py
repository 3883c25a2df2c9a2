"""Branch and cut at one threshold: its trees hold, its counts fit, it ends when told."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from eplb_gap.experiments.loads.random_instances import flat_instances
from eplb_gap.problem import Deployment, Placement
from eplb_gap.problem.bounds.bounds import Bound, adams_counts
from eplb_gap.problem.bounds.pairing_dual import previous_pair_sum
from eplb_gap.problem.bounds.pairing_tree import Tree, check_tree, tree_value, tree_witness
from eplb_gap.problem.certificate import CertificateError, check, write
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.engine import Limits
from eplb_gap.solvers.engines import pairing_search
from eplb_gap.solvers.engines.need_model import Relaxation
from eplb_gap.solvers.engines.oracle import best_map
from eplb_gap.solvers.engines.pairing import fold
from eplb_gap.solvers.engines.pairing_search import PairingSearch, compacted, search_at

SHAPES = [(3, 6, 3), (4, 6, 3), (5, 6, 3), (4, 8, 4), (6, 8, 4), (5, 10, 5), (8, 10, 5)]


def lognormal(experts: int, slots: int, sigma: float, seed: int) -> Instance:
    """Return an instance with lognormal loads of sum 1e6."""
    values = np.exp(sigma * np.random.default_rng(seed).normal(size=experts))
    return Instance(tuple(int(w) for w in np.maximum(1, np.rint(values / values.sum() * 10**6))), slots, slots // 2)


def started(instance: Instance, threshold: Fraction, seconds: float = 60.0) -> PairingSearch | None:
    """Return a search at a threshold that the relaxation does not refute."""
    limits = Limits(time.monotonic() + seconds)
    relaxation = Relaxation(instance, threshold, limits)
    return None if relaxation.refuted else search_at(instance, threshold, relaxation.multipliers, limits)


def ended(search: PairingSearch) -> PairingSearch:
    """Run a search to its end."""
    assert search.cut_root(math.inf, 0.02)
    assert search.branch(math.inf, 10**6)
    return search


@pytest.mark.parametrize("cuts", [0, 40])
def test_decides_as_the_oracle(cuts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing_search, "MOST_ADDED", cuts)
    branched = refuted = 0
    for instance in flat_instances(60, 41, SHAPES):
        if instance.duplicates == "forbidden":
            continue
        optimum = instance.makespan(best_map(instance))
        for threshold in (optimum, previous_pair_sum(instance, optimum)):
            search = None if not threshold else started(instance, threshold)
            if search is None:
                continue
            ended(search)
            assert search.refuted == (threshold < optimum), instance
            if search.refuted:
                tree = search.proof()
                check_tree(instance, threshold, tree)
                assert tree_value(instance, tree_witness(threshold, tree)) == optimum
                branched += len(tree.nodes) > 1
                refuted += 1
            else:
                assert search.counts is not None
                assert sum(search.counts) <= instance.num_slots
                if sum(search.counts) == instance.num_slots:
                    assert instance.makespan(fold(instance, search.counts)) <= threshold
    assert refuted
    assert branched or cuts


HARD, THRESHOLD = lognormal(32, 48, 0.6, 1), Fraction(42358)
"""No placement lies within the threshold, but the relaxation does not show it."""


def test_branches_without_cuts_and_cuts_shorten_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for cuts in (0, 1, 40):
        monkeypatch.setattr(pairing_search, "MOST_ADDED", cuts)
        search = started(HARD, THRESHOLD)
        assert search is not None
        assert search.branch(math.inf, 10**6)
        tree = search.proof()
        check_tree(HARD, THRESHOLD, tree)
        assert bool(tree.cuts) == bool(cuts)
        sizes.append(len(tree.nodes))
    assert sizes[0] > 20
    assert sizes[0] > sizes[1] > sizes[2]


def test_what_nothing_uses_is_left_out() -> None:
    search = started(HARD, THRESHOLD)
    assert search is not None
    tree = ended(search).proof()
    padded = Tree(tree.first, tree.points, tree.base, [*tree.cuts, *tree.cuts[:1]], [*tree.vectors, ()], tree.nodes)
    assert compacted(padded) == tree


def test_node_limit_deadline_and_resumption(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing_search, "MOST_ADDED", 0)
    search = started(HARD, THRESHOLD)
    assert search is not None
    assert search.cut_root(math.inf, 0.02)
    assert not search.branch(math.inf, 1)
    assert not search.refuted
    assert not search.branch(time.monotonic() - 1, 10**6)
    assert search.branch(math.inf, 10**6)
    assert search.refuted
    check_tree(HARD, THRESHOLD, search.proof())


def test_no_tree_grows_beyond_what_can_be_recounted(monkeypatch: pytest.MonkeyPatch) -> None:
    search = started(HARD, THRESHOLD)
    assert search is not None
    search.work = 1
    monkeypatch.setattr(pairing_search, "MAX_WORK", 0)
    assert not search.branch(math.inf, 10**6)
    monkeypatch.setattr(pairing_search, "MAX_WORK", 1)
    monkeypatch.setattr(pairing_search, "CHECKED_PER_SECOND", 1e-3)
    assert not search.branch(math.inf, 10**6)
    assert search.nodes == 0
    monkeypatch.undo()
    assert search.branch(math.inf, 10**6)
    assert search.refuted


def test_interrupt() -> None:
    instance = lognormal(256, 320, 0.3, 100)
    search = started(instance, Fraction(6280))
    assert search is not None
    timer = threading.Timer(1.0, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    began = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        search.cut_root(math.inf, 0.0)
        search.branch(math.inf, 10**6)
    assert time.monotonic() - began < 10


def test_a_certificate_with_a_tree_is_verified_while_all_solvers_are_blocked(tmp_path: Path) -> None:
    search = started(HARD, THRESHOLD)
    assert search is not None
    proof = ended(search).proof()
    width = search.rows.columns.expert.size
    assert search.work == sum((1 + len(proof.vectors[vector])) * width for node in proof.nodes for vector in node.vectors)
    witness = tree_witness(THRESHOLD, proof)
    bound = Bound(tree_value(HARD, witness), "pairing tree", witness)
    placement = Placement([fold(HARD, adams_counts(HARD.loads, 48, 24))], 32)
    path = tmp_path / "c.json"
    write(path, [HARD.loads], Deployment(32, 48, 24), placement, [bound])
    code = (
        "import sys\n"
        "for name in ('highspy', 'ortools', 'pulp', 'numba', 'scipy', 'torch'):\n"
        "    sys.modules[name] = None\n"
        "from eplb_gap.problem.certificate import check\n"
        "print(repr(check(sys.argv[1])))\n"
    )
    finished = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert f"lower=[{bound.value!r}]" in finished.stdout
    assert "claims=[]" in finished.stdout
    document = json.loads(path.read_text())
    document["layers"][0]["lower"] = f"{bound.value + 1}"
    path.write_text(json.dumps(document))
    with pytest.raises(CertificateError, match="its pairing tree witness proves"):
        check(path)
