"""The replayed search: no threshold that a map keeps is ever refuted, all others are, and no damaged log passes."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
import zlib
from fractions import Fraction
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from every_map import SHAPES, instances, makespan, maps_of, optimum
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap.problem import Deployment, InputError, Instance, Placement
from eplb_gap.problem.bounds import exhausted, gpu_patterns
from eplb_gap.problem.bounds.bounds import Bound
from eplb_gap.problem.bounds.exhausted import record, replay_witness, replayed_value, search_refutes
from eplb_gap.problem.bounds.gpu_patterns import multisets
from eplb_gap.problem.certificate import CertificateError, check, write
from eplb_gap.solvers.engine import Incumbent, Limits, drive
from eplb_gap.solvers.engines import exact_cover

SMALL: list[tuple[int, int, int, Any]] = [*SHAPES, (4, 8, 4, "allowed"), (5, 8, 2, "allowed"), (6, 8, 4, "forbidden")]
HARD = Instance((3284, 4233, 4603, 2663, 9385, 23342, 2668, 2487, 2791, 3755, 3141, 5508, 7648, 5959, 4073, 14459), 24, 8)


@given(instances(SMALL))
@settings(max_examples=150)
def test_it_refutes_what_no_map_keeps_and_nothing_else(instance: Instance) -> None:
    values = sorted({makespan(on_gpu, instance.loads) for on_gpu in maps_of(instance)})
    best = values[0]
    for threshold in (best * Fraction(7, 8), best - Fraction(1, 840), best, best * Fraction(9, 8), values[-1]):
        log = record(instance, threshold)
        assert (log is None) == (threshold >= best)
        if log is not None:
            assert search_refutes(instance, threshold, log)
        if log is not None and threshold >= 0:
            assert threshold <= replayed_value(instance, replay_witness(threshold, log)) <= best


@given(instances(SMALL), st.data())
@settings(max_examples=150)
def test_whatever_the_log_says_a_kept_threshold_is_not_refuted(instance: Instance, data: st.DataObject) -> None:
    names = st.integers(0, instance.num_experts)
    log = data.draw(st.lists(st.lists(names, max_size=6).map(bytes), max_size=instance.num_gpus))
    threshold = optimum(instance) * data.draw(st.sampled_from([1, Fraction(17, 16), 2]))
    try:
        assert not search_refutes(instance, threshold, log)
    except InputError as error:
        assert "replayed search" in str(error)


@given(st.integers(1, 3), st.data())
@settings(max_examples=60)
def test_multisets_are_those_in_the_band(k: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(1, 9))
    size = np.sort(np.array([data.draw(st.integers(0, 20)) for _ in range(number)]))[::-1]
    expert = np.array([data.draw(st.integers(0, 4)) for _ in range(number)])
    most = np.array([data.draw(st.integers(1, 3)) for _ in range(number)])
    low = data.draw(st.integers(0, 40))
    high = low + data.draw(st.integers(0, 15))
    found = [tuple(row) for part in multisets(size, expert, most, k, low, high) for row in part.tolist()]
    expected = [
        types
        for types in combinations_with_replacement(range(number), k)
        if len({expert[t] for t in types}) == len(set(types))
        and all(types.count(t) <= most[t] for t in types)
        and low <= sum(size[t] for t in types) <= high
    ]
    assert sorted(found) == expected


@pytest.fixture(scope="module")
def solved() -> tuple[Fraction, dict[str, Any], tuple[int, ...]]:
    """Optimum, witness and map of an instance that takes a search of some nodes."""
    incumbent = Incumbent(HARD)
    drive(exact_cover.search, incumbent, Limits(time.monotonic() + 60), lambda: None)
    assert incumbent.bound.kind == "replayed search"
    assert incumbent.upper is not None
    assert incumbent.slots is not None
    assert sum(incumbent.bound.witness["nodes"]) > 10
    return incumbent.upper, incumbent.bound.witness, incumbent.slots


def test_an_engines_log_is_replayed_to_the_optimum(solved: Any) -> None:
    best, witness, _ = solved
    assert replayed_value(HARD, json.loads(json.dumps(witness))) == best


def test_the_log_is_not_believed_above_the_optimum(solved: Any) -> None:
    best, witness, _ = solved
    for threshold in (best, best + Fraction(1, 840), best * Fraction(1001, 1000)):
        with pytest.raises(InputError, match=r"there is a placement within|the log (has|branches)"):
            replayed_value(HARD, {**witness, "threshold": str(threshold)})
    assert record(HARD, best) is None


def test_other_names_cost_time_but_prove_the_same(solved: Any) -> None:
    best, witness, _ = solved
    threshold = Fraction(witness["threshold"])
    log = record(HARD, threshold)
    assert log is not None
    assert log != unpacked(witness)
    assert replayed_value(HARD, replay_witness(threshold, log)) == best


def unpacked(witness: dict[str, Any]) -> list[bytes]:
    content = zlib.decompress(base64.b64decode(witness["log"]))
    return [content[sum(witness["nodes"][:d]) : sum(witness["nodes"][: d + 1])] for d in range(len(witness["nodes"]))]


def packed(witness: dict[str, Any], content: bytes) -> dict[str, Any]:
    return {**witness, "log": base64.b64encode(zlib.compress(content)).decode()}


DAMAGE: dict[str, Any] = {
    "no log": lambda w: {key: w[key] for key in ("threshold", "nodes")},
    "an unknown field": lambda w: {**w, "optimum": "1/1"},
    "threshold as a number": lambda w: {**w, "threshold": 4000},
    "threshold with an exponent": lambda w: {**w, "threshold": "1e99999999"},
    "threshold over zero": lambda w: {**w, "threshold": "1/0"},
    "log as bytes of a list": lambda w: {**w, "log": list(w["log"])},
    "log no base64": lambda w: {**w, "log": "?" + w["log"][1:]},
    "log no ascii": lambda w: {**w, "log": "\u00e9" + w["log"][1:]},
    "log truncated": lambda w: {**w, "log": w["log"][: len(w["log"]) // 8 * 4]},
    "log followed by more": lambda w: {**w, "log": base64.b64encode(base64.b64decode(w["log"]) + b"more").decode()},
    "a bomb": lambda w: packed(w, bytes(10**7)),
    "an entry too few": lambda w: packed(w, b"".join(unpacked(w))[:-1]),
    "an entry too many": lambda w: packed(w, b"".join(unpacked(w)) + b"\0"),
    "more nodes than there are": lambda w: packed({**w, "nodes": [*w["nodes"][:-1], 1]}, b"".join(unpacked(w)) + b"\0"),
    "nodes of another depth": lambda w: {**w, "nodes": [0, *w["nodes"][:-1]]},
    "nodes missing at the root": lambda w: packed({**w, "nodes": [0, *w["nodes"][1:]]}, b"".join(unpacked(w)[1:])),
    "nodes as booleans": lambda w: {**w, "nodes": [True, *w["nodes"][1:]]},
    "negative nodes": lambda w: {**w, "nodes": [*w["nodes"], -1]},
    "nodes beyond the limit": lambda w: {**w, "nodes": [10**9]},
    "nodes as a number": lambda w: {**w, "nodes": 7},
    "an expert that is none": lambda w: packed(w, b"\xff" + b"".join(unpacked(w))[1:]),
    "a log of another search": lambda w: packed(w, b"".join(unpacked(w))[::-1]),
    "no entries at all": lambda w: {**w, **replay_witness(Fraction(w["threshold"]), [])},
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_logs_are_refused(solved: Any, name: str) -> None:
    with pytest.raises(InputError, match="replayed search: "):
        replayed_value(HARD, DAMAGE[name](solved[1]))


def test_the_limits_are_kept(solved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"MAX_PATTERNS": 10, "MAX_PARTIAL": 100, "MAX_EXPERTS": 15, "LARGEST": 2**20, "MAX_WORK": 1000}
    for name, number in limits.items():
        with monkeypatch.context() as patched, pytest.raises(InputError, match="replayed search: "):
            patched.setattr(exhausted if name == "MAX_WORK" else gpu_patterns, name, number)
            replayed_value(HARD, solved[1])


def test_a_small_chunk_changes_nothing(solved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exhausted, "CHUNK", 500)
    assert replayed_value(HARD, solved[1]) == solved[0]


def test_a_certificate_holds_where_no_solver_can_be_imported(solved: Any, tmp_path: Path) -> None:
    best, witness, slots = solved
    deployment, path = Deployment(16, 24, 8), tmp_path / "c.json"
    write(path, [HARD.loads], deployment, Placement([slots], 16), [Bound(best, "replayed search", witness)])
    verdict = check(path)
    assert (verdict.lower, verdict.optimal, verdict.claims) == ([best], 1, [])
    code = (
        "import sys\n"
        "for name in ('ortools', 'highspy', 'pulp', 'numba', 'torch', 'scipy'):\n"
        "    sys.modules[name] = None\n"
        "from eplb_gap.problem.certificate import check\n"
        f"assert check({str(path)!r}).optimal == 1\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    document = json.loads(path.read_text())
    document["layers"][0]["witness"]["log"] = document["layers"][0]["witness"]["log"][:-8]
    path.write_text(json.dumps(document))
    with pytest.raises(CertificateError, match="layer 0: replayed search: "):
        check(path)
