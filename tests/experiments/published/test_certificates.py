"""The published certificates hold without any solver, one of every kind of witness among them."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction

import pytest

from eplb_gap.experiments.loads import witnesses
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.published import certificates
from eplb_gap.problem import certificate
from eplb_gap.problem.proofs import PROOFS

FOLDER = rows.RESULTS / certificates.FOLDER
BLOCKED = ("ortools", "pulp", "highspy", "scipy", "numba", "torch", "eplb_gap.solvers", "eplb_gap.heuristics")
PROGRAM = f"""
import json, sys
for name in {BLOCKED!r}:
    sys.modules[name] = None
from fractions import Fraction
from pathlib import Path
from eplb_gap.problem import certificate
found = {{}}
for path in sorted(Path(sys.argv[1]).glob("*.json")):
    verdict = certificate.check(path)
    kinds = sorted({{bound.kind for bound in certificate.read(path).bounds}})
    found[path.stem] = [kinds, verdict.claims, [str(value) for value in verdict.lower]]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def judged():
    """Judge every published certificate in a process in which no solver can be imported."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(FOLDER)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_every_certificate_holds_where_no_solver_can_be_imported(judged):
    assert set(judged) == {path.stem for path in FOLDER.glob("*.json")}


def test_every_kind_of_witness_has_one_that_rests_on_it_alone(judged):
    assert {kind for kind, proof in PROOFS.items() if proof.trust != "recomputed"}.isdisjoint(witnesses.KINDS)
    for kind in witnesses.KINDS:
        kinds, claims, _ = judged[witnesses.name_of(kind)]
        assert (kinds, claims) == ([kind], [])


@pytest.mark.parametrize("kind", witnesses.KINDS)
def test_a_witness_proves_no_more_than_it_says(tmp_path, kind):
    document = json.loads((FOLDER / f"{witnesses.name_of(kind)}.json").read_text())
    numerator, denominator = map(int, document["layers"][0]["lower"].split("/"))
    more = Fraction(numerator, denominator) + Fraction(1, 10**6)
    document["layers"][0]["lower"] = f"{more.numerator}/{more.denominator}"
    path = tmp_path / "more.json"
    path.write_text(json.dumps(document))
    with pytest.raises(certificate.CertificateError):
        certificate.check(path)


def test_a_certificate_of_another_kind_or_instance_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(certificates, "gap_cases", dict)
    monkeypatch.setattr(witnesses, "KINDS", ("mean", "slot counting", "capacity"))
    text = (FOLDER / "witness-mean.json").read_text()
    for name in ("witness-mean", "witness-capacity"):
        (tmp_path / f"{name}.json").write_text(text)
    missing, other = certificates.problems(tmp_path)
    assert missing.startswith("certificates/witness-slot-counting.json: ")
    assert other == "certificates/witness-capacity.json: its bounds do not rest on capacity alone"


def test_an_example_without_its_witness_is_an_error(monkeypatch):
    tight = next(example for example in witnesses.EXAMPLES if example.kind == "apportionment")
    monkeypatch.setattr(witnesses, "EXAMPLES", [witnesses.Example("mean", tight.loads, tight.deployment, tight.method)])
    with pytest.raises(ValueError, match="no example of 'mean' ends with such a witness, but with apportionment"):
        certificates.example("mean")
