"""The checker that was written from the page on certificates alone accepts what is published and refuses what is damaged."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from eplb_gap import Deployment, Placement, PlacementError, solvers, verify
from eplb_gap.problem.certificate import check, write
from eplb_gap.problem.fractions import fraction

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "results" / "certificates"
LEFT_OUT = {"replayed search", "pairing tree"}


@pytest.fixture(scope="module")
def checker():
    spec = importlib.util.spec_from_file_location("checker", ROOT / "docs" / "checker.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_imports_nothing_of_ours():
    assert "eplb_gap" not in (ROOT / "docs" / "checker.py").read_text()


def test_every_published_certificate_holds(checker):
    judged = 0
    for path in sorted(FOLDER.glob("*.json")):
        layers, left = checker.judge(path)
        assert layers + len(left) == len(json.loads(path.read_text())["layers"])
        assert set(left) <= LEFT_OUT
        judged += layers
    assert judged > 200


def moved(document):
    document["phy2log"][0][0] = document["phy2log"][0][-1]


def raised(key, value):
    def damage(document):
        document["layers"][0][key] = value

    return damage


def witnessed(key, value):
    def damage(document):
        document["layers"][0]["witness"][key] = value

    return damage


def closed(document):
    layer = next(layer for layer in document["layers"] if layer["lower"] != layer["upper"])
    layer["lower"] = layer["upper"]


def replaced(*path_and_value):
    """Return what puts a value at a path of keys."""
    *path, last, value = path_and_value

    def damage(document):
        for key in path:
            document = document[key]
        document[last] = value

    return damage


def crowded(document):
    """Three groups of one expert on the first node, one on the second, which has two slots too many for it."""
    document.update(deployment=document["deployment"] | {"num_experts": 4, "num_slots": 6, "num_gpus": 2, "num_groups": 4})
    document.update(loads=[[1, 1, 1, 3]], phy2log=[[0, 1, 2, 3, 3, 3]], loads_sha256=digest([[1, 1, 1, 3]]))
    document["layers"][0] = {"upper": "3/1", "lower": "3/1", "proof": "mean", "witness": {}}


def digest(loads):
    return hashlib.sha256(np.array(loads, dtype="<i8").tobytes()).hexdigest()


DAMAGED = {
    "a replica moved": ("flagship-recorded", moved),
    "a makespan": ("witness-mean", raised("upper", "5001/1")),
    "a bound above": ("witness-mean", raised("lower", "5001/1")),
    "a weaker kind": ("witness-capacity", raised("proof", "mean")),
    "another kind": ("witness-apportionment", raised("proof", "mean")),
    "no multipliers": ("witness-pairing-dual", witnessed("multipliers", [])),
    "rising multipliers": ("witness-pairing-dual", witnessed("multipliers", [["1042", "1/5"], ["684", "3/5"]])),
    "a threshold": ("witness-pairing-dual", witnessed("threshold", "2600/2")),
    "no prices": ("witness-pattern-dual", witnessed("proof", [])),
    "what slot counting refutes": ("witness-slot-counting", witnessed("refuted", "716")),
    "an optimum that is not proven": ("flagship-recorded", closed),
    "more groups on a node than it hosts": ("witness-hierarchical", crowded),
    "an expert counted from the end": ("witness-mean", replaced("phy2log", 0, 3, -1)),
    "an expert that is none": ("witness-mean", replaced("phy2log", 0, 3, 4)),
    "slots that the map lacks": ("witness-capacity", replaced("deployment", "num_slots", 11)),
    "no such groups": ("witness-mean", replaced("deployment", "num_groups", 3)),
    "another schema": ("witness-mean", replaced("schema", "eplb-gap certificate 2")),
    "other loads": ("witness-mean", replaced("loads_sha256", 64 * "0")),
    "a key that nobody reads": ("witness-mean", replaced("layers", 0, "witness", "note", 1)),
    "a flag for an integer": ("witness-mean", replaced("deployment", "num_nodes", True)),
    "a fraction not in lowest terms": ("witness-mean", replaced("layers", 0, "lower", "9998/2")),
    "counts that are not the best": ("witness-apportionment", replaced("layers", 0, "witness", "counts", [2, 1, 1, 2, 1, 1])),
}


@pytest.mark.parametrize(("name", "damage"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_certificate_is_refused(checker, tmp_path, name, damage):
    document = json.loads((FOLDER / f"{name}.json").read_text())
    damage(document)
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(document))
    with pytest.raises(checker.Refused):
        checker.judge(path)


def test_a_key_twice_is_refused(checker, tmp_path):
    text = (FOLDER / "witness-mean.json").read_text()
    path = tmp_path / "twice.json"
    path.write_text(text[:-1] + ', "schema": "eplb-gap certificate 1"}')
    with pytest.raises(checker.Refused, match="twice"):
        checker.judge(path)


SHAPES = [
    Deployment(5, 8, 4),
    Deployment(5, 8, 4, duplicates="forbidden"),
    Deployment(7, 12, 4, duplicates="forbidden"),
    Deployment(8, 12, 4, 2, 4),
    Deployment(5, 9, 4, slots_per_gpu=[3, 1, 3, 2], active=[True, True, True, False]),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_on_drawn_loads_it_accepts_what_the_kernel_accepts_and_no_bound_above_the_optimum(checker, tmp_path, shape):
    path, refused = tmp_path / "drawn.json", 0
    for seed in range(4):
        loads = np.random.default_rng(seed).integers(0, 9 if seed % 2 else 900, (1, shape.num_experts))
        bounded, best = (solvers.solve(loads, shape, method=method, time_limit=2) for method in ("bounds", "auto"))
        write(path, loads, shape, bounded.placement, bounded.bounds)
        assert not check(path).claims
        assert checker.judge(path) == (1, [])
        document = json.loads(path.read_text())
        document["phy2log"] = rolled = np.roll(best.placement.phy2log, 1, axis=1).tolist()
        try:
            [worse] = verify(Placement(rolled, shape.num_experts), loads, shape)
        except PlacementError:
            continue
        if worse > best.upper[0] == best.lower[0]:  # a bound above the optimum, below the makespan of another map
            lower = fraction((best.upper[0] + worse) / 2)
            for kind in ("mean", "capacity", "apportionment", "forced counts"):
                document["layers"][0] = {"upper": fraction(worse), "lower": lower, "proof": kind, "witness": {}}
                path.write_text(json.dumps(document))
                with pytest.raises(checker.Refused):
                    checker.judge(path)
            refused += 1
    assert refused > 0 or shape.policy == "hierarchical"  # where a rolled map is not legal
