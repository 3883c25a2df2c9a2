from __future__ import annotations

import json
import time
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap import solvers
from eplb_gap.heuristics import rebalance
from eplb_gap.problem import Deployment, InputError, Placement, PlacementError, verify
from eplb_gap.problem.bounds.bounds import Bound
from eplb_gap.problem.certificate import CertificateError
from eplb_gap.solvers import ENGINES, METHODS, ContradictionError, Interrupted, solve
from eplb_gap.solvers.engine import Engine

README = np.array([[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86], [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]])
SHAPE = Deployment.preset("deepseek-readme")
FLASHLB = np.array([[600, 560, 120, 120, 20, 10, 10, 10]])


@pytest.mark.parametrize("duplicates", ["allowed", "forbidden"])
@pytest.mark.parametrize("method", ["auto", "cpsat", "milp"])
def test_readme_hierarchical_optima_by_two_solvers(method, duplicates):
    shape = Deployment(12, 16, 8, 2, 4, duplicates)
    solution = solve(README, shape, method, time_limit=40)
    assert solution.upper == solution.lower == [Fraction(151), Fraction(359, 2)]
    assert solution.status == ["optimal", "optimal"]
    assert solution.gap == [0.0, 0.0]
    assert verify(solution.placement, README, shape) == solution.upper


@pytest.mark.parametrize(("method", "rests_on"), [("auto", "hierarchical"), ("cpsat", "hierarchical, claim of CP-SAT")])
def test_the_proof_says_what_it_rests_on(method, rests_on):
    assert solve(README, SHAPE, method).proof[0] == rests_on


def test_published_readme_map_has_the_published_maxima():
    published = rebalance(README, SHAPE, "initial_program")
    assert verify(published, README, SHAPE) == [156, Fraction(359, 2)]


def test_flagship_is_certified_by_closed_forms_within_a_percent():
    generator = np.random.default_rng(1)
    loads = generator.poisson(np.exp(0.5 * generator.normal(size=(3, 256))) * 5000)
    solution = solve(loads, Deployment.preset("dsv3-prefill-ep32"), "bounds")
    assert max(solution.gap) < 0.01
    assert set(solution.status) <= {"bounded", "optimal"}
    assert set(solution.proof) == {"hierarchical"}


def test_zero_loads_are_optimal_at_once():
    solution = solve(np.zeros((2, 12), dtype=int), SHAPE)
    assert solution.upper == [0, 0]
    assert solution.status == ["optimal", "optimal"]
    assert solution.gap == [0.0, 0.0]


def test_an_initial_placement_is_never_made_worse():
    first = solve(README, SHAPE).placement
    again = solve(README, SHAPE, "bounds", initial=first)
    assert again.upper == [151, Fraction(359, 2)]


def test_an_illegal_initial_placement_is_refused():
    with pytest.raises(PlacementError, match="layer 0"):
        solve(README, SHAPE, initial=Placement(np.tile(np.r_[0:12, 0:4], (2, 1)), 12))


def test_the_time_limit_covers_the_whole_call():
    generator = np.random.default_rng(2)
    loads = generator.integers(100, 9000, size=(6, 16))
    solve(loads[:1], Deployment(16, 24, 8), "bounds")  # compiles what is not compiled yet, which no limit can stop
    start = time.monotonic()
    solution = solve(loads, Deployment(16, 24, 8), "cpsat", time_limit=3)
    assert time.monotonic() - start < 3 * 1.1 + 1
    assert len(solution.upper) == 6


def test_progress_reports_every_layer():
    seen = []
    solve(README, SHAPE, progress=seen.append)
    assert {p.layer for p in seen} == {0, 1}
    for layer, upper in enumerate((151, 179.5)):
        of_layer = [p for p in seen if p.layer == layer]
        assert {(p.num_layers, p.engine) for p in of_layer} == {(2, "auto")}
        assert (of_layer[-1].upper, of_layer[-1].lower, of_layer[-1].gap) == (upper, upper, 0.0)
        # It only gets better, and the gap is that of the two values beside it.
        assert [p.upper for p in of_layer] == sorted((p.upper for p in of_layer), reverse=True)
        assert [p.lower for p in of_layer] == sorted(p.lower for p in of_layer)
        assert [p.gap for p in of_layer] == pytest.approx([p.upper / p.lower - 1 for p in of_layer])
    assert seen[0].elapsed > 0 and [p.elapsed for p in seen] == sorted(p.elapsed for p in seen)


@pytest.mark.parametrize("policy", ["hierarchical", "global"])
def test_interrupted_carries_a_legal_solution_of_all_layers(policy):
    shape = SHAPE if policy == "hierarchical" else SHAPE.as_global()

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        solve(README, shape, progress=stop)
    assert isinstance(caught.value, KeyboardInterrupt)
    solution = caught.value.solution
    assert verify(solution.placement, README, shape) == solution.upper
    assert all(up >= low > 0 for up, low in zip(solution.upper, solution.lower, strict=True))


def test_a_lying_engine_is_caught(monkeypatch):
    def liar(instance, incumbent, limits):
        yield Bound(incumbent.upper + 1, "claim", {"solver": "liar"})

    monkeypatch.setitem(ENGINES, "liar", Engine("liar", liar))
    with pytest.raises(ContradictionError, match="liar"):
        solve(FLASHLB, Deployment(8, 16, 8), "liar")


def test_an_engine_that_cheats_with_its_map_is_caught(monkeypatch):
    def cheat(instance, incumbent, limits):
        yield (7,) * 16

    monkeypatch.setitem(ENGINES, "cheat", Engine("cheat", cheat))
    with pytest.raises(PlacementError, match="every expert is needed"):
        solve(FLASHLB, Deployment(8, 16, 8), "cheat")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"method": "gurobi"}, "method is 'gurobi'"),
        ({"target_gap": -0.1}, "target_gap is -0.1"),
        ({"target_gap": float("nan")}, "target_gap is nan"),
        ({"time_limit": 0}, "time_limit is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"loads": README[:, :5]}, "loads has 5 experts"),
        ({"loads": README * 1.5}, "integral"),
        ({"loads": -README}, "non-negative"),
        *(({"seed": seed}, "seed is") for seed in (-1, 2**70, 1.5, None, "1")),
        ({"workers": 10**10}, "workers is"),
        ({"time_limit": "1"}, "time_limit is '1'"),
        ({"target_gap": None}, "target_gap is None"),
        ({"loads": README[0]}, "axes"),
    ],
)
def test_bad_arguments_are_named(arguments, text):
    with pytest.raises(InputError, match=text):
        solve(arguments.pop("loads", README), SHAPE, **arguments)


def test_a_name_is_its_records_name():
    assert all(name == engine.name and METHODS[name] is engine.search for name, engine in ENGINES.items())
    assert METHODS.keys() == ENGINES.keys()


def test_a_bound_that_comes_at_the_deadline_still_counts(monkeypatch):
    def late(instance, incumbent, limits):
        yield incumbent.slots
        time.sleep(limits.seconds_left)
        yield Bound(Fraction(190), "claim", {"solver": "late"})

    monkeypatch.setitem(ENGINES, "late", Engine("late", late))
    assert solve(FLASHLB, Deployment(8, 16, 8), "late", time_limit=0.5).lower == [190]


def test_a_solution_is_saved_and_read_back_judged_anew(tmp_path):
    loads = [[600, 560, 120, 120, 20, 10, 10, 10]]
    solution = solvers.solve(loads, Deployment(8, 16, 8))
    path = tmp_path / "solution.json"
    solution.save(path)
    again = solvers.Solution.load(path)
    assert (again.upper, again.lower, again.proof) == (solution.upper, solution.lower, solution.proof)
    assert (again.deployment, again.loads_sha256) == (solution.deployment, solution.loads_sha256)
    assert (again.placement.phy2log == solution.placement.phy2log).all()
    document = json.loads(path.read_text())
    upper = solution.upper[0] + 1
    document["layers"][0]["upper"] = f"{upper.numerator}/{upper.denominator}"
    path.write_text(json.dumps(document))
    with pytest.raises(CertificateError, match="the map's makespan"):
        solvers.Solution.load(path)


def test_ctrl_c_that_numba_turns_into_another_error_keeps_the_solution():
    def interrupted(_):
        raise SystemError("returned a result with an exception set") from KeyboardInterrupt()

    with pytest.raises(Interrupted) as stop:
        solve([[9, 8, 7, 5, 3]], Deployment(5, 8, 4), progress=interrupted)
    assert verify(stop.value.solution.placement, [[9, 8, 7, 5, 3]], Deployment(5, 8, 4)) == stop.value.solution.upper

    def broken(_):
        raise SystemError("something else")

    with pytest.raises(SystemError, match="something else"):
        solve([[9, 8, 7, 5, 3]], Deployment(5, 8, 4), progress=broken)
