"""A recorded routing: what it sums to, and what is no routing."""

from __future__ import annotations

import numpy as np
import pytest

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.routing import trace
from eplb_gap.problem.routing.trace import RoutingTrace


def drawn(experts: int = 300, tokens: int = 50, layers: int = 3, topk: int = 4) -> np.ndarray:
    """Return experts [tokens, layers, topk], none twice in a row."""
    rng = np.random.default_rng(tokens)
    return rng.random((tokens, layers, experts)).argsort(axis=2)[:, :, :topk]


def test_loads_pairs_and_bundles_count_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "BLOCK", 7)
    given = drawn(experts=12)
    routing = RoutingTrace(given, 12)
    for layer in range(3):
        loads, pairs = [0] * 12, np.zeros((12, 12), dtype=int)
        sets: dict[tuple[int, ...], int] = {}
        for row in given[:, layer].tolist():
            for e in row:
                loads[e] += 1
                for f in row:
                    pairs[e, f] += 1
            sets[tuple(sorted(row))] = sets.get(tuple(sorted(row)), 0) + 1
        assert routing.loads()[layer].tolist() == loads == np.diagonal(pairs).tolist()
        assert (routing.co_activation(layer) == pairs).all()
        found, weights = routing.bundles(layer)
        assert dict(zip(map(tuple, found.tolist()), weights.tolist(), strict=True)) == sets


def test_windows_are_forward_passes_or_stretches_of_tokens() -> None:
    given, step = drawn(experts=12), np.arange(50) // 7 * 3
    routing = RoutingTrace(given, 12, step=step)
    by_step = routing.load_trace()
    assert [window.sum() for window in by_step.loads] == [7 * 3 * 4] * 7 + [1 * 3 * 4]
    by_tokens = routing.load_trace(window_tokens=20)
    assert (by_tokens.loads[1] == routing.part(20, 40).loads()).all() and len(by_tokens.loads) == 3
    assert (RoutingTrace(given, 12).load_trace().loads[0] == by_step.loads.sum(axis=0)).all()


def test_the_narrowest_type_is_kept_and_nothing_can_be_changed() -> None:
    assert RoutingTrace(drawn(), 300).experts.dtype == np.uint16
    routing = RoutingTrace(drawn(experts=256), 256)
    assert routing.experts.dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        routing.experts[0, 0, 0] = 1


@pytest.mark.parametrize(
    ("rows", "columns", "says"),
    [
        ([[[0, 1]], [[2, -1]]], {}, r"experts\[1, 0, 1\] is -1; one of 0 to 3"),
        ([[[0, 4]]], {}, r"experts\[0, 0, 1\] is 4"),
        ([[[0, 1]], [[3, 3]]], {}, r"token 1 names an expert twice in layer 0: \[3, 3\]"),
        ([[[0, 1]], [[3]]], {}, "ragged"),
        ([[0, 1]], {}, r"\[tokens, layers, topk\]"),
        ([[[0.0, 1.0]]], {}, "float64"),
        ([[[0, 1]], [[1, 2]]], {"step": [1, 0]}, r"step\[1\] is 0, less than the 1 before it"),
        ([[[0, 1]], [[1, 2]]], {"source": [0]}, "2 integers of at least 0"),
        ([[[0, 1]], [[1, 2]]], {"request": [0, -1]}, "2 integers of at least 0"),
        ([[[0, 1]], [[1, 2]]], {"source": np.array([0, 2**63], dtype=np.uint64)}, "source has 9223372036854775808"),
    ],
)
def test_what_is_no_routing_is_refused_by_its_place(rows: object, columns: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        RoutingTrace(rows, 4, **columns)  # type: ignore[arg-type]


def test_the_experts_are_numbered_by_a_known_number() -> None:
    for wrong in (0, True, 1 << 17, 2.0):
        with pytest.raises(InputError, match="num_experts is"):
            RoutingTrace([[[0]]], wrong)  # type: ignore[arg-type]


def test_a_file_gives_the_trace_back(tmp_path) -> None:
    given = RoutingTrace(drawn(), 300, request=np.arange(50), step=np.arange(50) // 7, provenance={"kind": "drawn"})
    given.save(tmp_path / "routing.npz")
    back = RoutingTrace.load(tmp_path / "routing.npz")
    assert (back.experts == given.experts).all() and back.num_experts == 300 and back.source is None
    assert (back.step == given.step).all() and (back.request == given.request).all() and back.provenance == given.provenance
    given.load_trace(10).save(tmp_path / "loads.npz")
    with pytest.raises(InputError, match="no entry 'experts'"):
        RoutingTrace.load(tmp_path / "loads.npz")
    np.savez(tmp_path / "other.npz", experts=given.experts)
    with pytest.raises(InputError, match="no entry 'head'"):
        RoutingTrace.load(tmp_path / "other.npz")
