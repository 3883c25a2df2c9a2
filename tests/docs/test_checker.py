"""The checker that was written from the page on certificates alone accepts what is published and refuses what is damaged."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

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
}


@pytest.mark.parametrize(("name", "damage"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_certificate_is_refused(checker, tmp_path, name, damage):
    document = json.loads((FOLDER / f"{name}.json").read_text())
    damage(document)
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(document))
    with pytest.raises(checker.Refused):
        checker.judge(path)
