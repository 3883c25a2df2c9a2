from __future__ import annotations

import copy
import json
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap.problem import Deployment, InputError, Placement, PlacementError, certificate
from eplb_gap.problem.bounds.bounds import Bound, apportionment_bound, mean_bound, slot_counting_bound
from eplb_gap.problem.certificate import CertificateError, check, write
from eplb_gap.problem.instance import Instance

NODES = Deployment(8, 12, 4, num_nodes=2, num_groups=4)
LOADS = np.array([[90, 30, 40, 60, 20, 50, 70, 10]])
MAP = Placement([[0, 1, 2, 0, 3, 1, 4, 5, 6, 4, 7, 6]], 8)
FLASHLB = np.array([[600, 560, 120, 120, 20, 10, 10, 10]])
FLAT = Deployment(8, 16, 8)
FLASHLB_MAP = Placement([[0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 1, 7, 1, 1, 1, 1]], 8)


def node_bound(value):
    return Bound(value, "hierarchical", {"nodes": []})


@pytest.fixture
def valid(tmp_path):
    path = tmp_path / "c.json"
    # Nodes {0,1} and {2,3} carry 220 and 150 on two GPUs; the best partition of the groups 120, 100, 70, 80 is {0,2}, {1,3}.
    write(path, LOADS, NODES, MAP, [node_bound(Fraction(190, 2))])
    return path


def tampered(path, change):
    document = json.loads(path.read_text())
    before = copy.deepcopy(document)
    change(document)
    assert document != before
    path.write_text(json.dumps(document))
    return path


def test_a_valid_certificate_is_accepted(valid):
    verdict = check(valid)
    assert verdict.upper == [Fraction(120)]
    assert verdict.lower == [95]
    assert verdict.claims == []


def test_tampering_is_rejected_and_the_rule_named(valid):
    original = valid.read_text()
    cases = [
        (lambda d: d["loads"][0].__setitem__(0, 91), "loads_sha256"),
        (lambda d: d.__setitem__("loads_sha256", "0" * 64), "loads_sha256"),
        (lambda d: d["phy2log"][0].__setitem__(0, 7), "layer 0"),
        (lambda d: d["layers"][0].__setitem__("upper", "1/1"), "upper is 1"),
        (lambda d: d["layers"][0].__setitem__("lower", "191/2"), "bounds all lie below"),
        (lambda d: d["layers"][0].__setitem__("lower", "500/1"), "above the map's makespan"),
        # 95 exceeds the mean of all four GPUs, so that proof does not carry it
        (lambda d: d["layers"][0].update(proof="mean", witness={}), "mean witness proves 185/2"),
        (lambda d: d["layers"].append(d["layers"][0]), "2 layer entries"),
        (lambda d: d["layers"][0].__setitem__("proof", "oracle"), "no proof of kind"),
        (lambda d: d["layers"][0].__setitem__("witness", {}), "layer 0: .* has no field 'nodes'"),
        (lambda d: d["layers"][0].__setitem__("witness", {"nodes": [{"groups": [0]}]}), r"nodes\[0\] has no field 'value'"),
    ]
    for change, text in cases:
        valid.write_text(original)
        tampered(valid, change)
        with pytest.raises((CertificateError, PlacementError), match=text):
            check(valid)


def test_a_node_witness_counts_only_if_it_proves_its_value(valid):
    lie = {"nodes": [{"groups": [0, 2], "value": "110/1", "kind": "mean", "witness": {}}]}
    with pytest.raises(CertificateError, match="mean witness proves"):
        check(tampered(valid, lambda d: d["layers"][0].update(lower="96/1", witness=lie)))


@pytest.mark.parametrize(("limit", "text"), [("MAX_SETS", "node problems"), ("MAX_STEPS", "sets of groups")])
def test_nodes_beyond_a_limit_are_not_searched(valid, monkeypatch, limit, text):
    monkeypatch.setattr(certificate, limit, 1)
    with pytest.raises(CertificateError, match=text):
        check(tampered(valid, lambda d: d["layers"][0].__setitem__("lower", "191/2")))


@pytest.mark.parametrize("make", [mean_bound, apportionment_bound, slot_counting_bound])
def test_closed_forms_are_recomputed(tmp_path, make):
    bound = make(Instance.of_layer(FLASHLB[0], FLAT))
    path = tmp_path / "c.json"
    write(path, FLASHLB, FLAT, FLASHLB_MAP, [bound])
    assert check(path).lower == [bound.value]
    raised = bound.value + Fraction(1, 7)
    with pytest.raises(CertificateError, match="witness proves"):
        check(tampered(path, lambda d: d["layers"][0].__setitem__("lower", f"{raised.numerator}/{raised.denominator}")))


def test_claims_are_listed_and_not_believed_above_the_makespan(tmp_path):
    path = tmp_path / "c.json"
    write(path, FLASHLB, FLAT, FLASHLB_MAP, [Bound(Fraction(590, 3), "claim", {"solver": "CP-SAT"})])
    assert list(map(str, check(path).claims)) == ["layer 0: 590/3 by claim of CP-SAT"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ('{"schema": 1, "schema": 1}', "no JSON"),
        ('{"schema": NaN}', "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no schema"),
        ('{"schema": "eplb-gap certificate 2"}', "no schema"),
        ('{"schema": "eplb-gap certificate 1"}', "it has no field 'deployment'"),
    ],
)
def test_files_that_are_no_certificates(tmp_path, text, message):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        check(path)
    with pytest.raises(InputError, match="does not exist"):
        check(tmp_path / "nowhere.json")


@pytest.mark.parametrize("text", ["1e999999999", "1/0", "-1/2", "nan", "1.5", 7, None, "9" * 3000])
def test_only_plain_fractions_are_read(valid, text):
    with pytest.raises(InputError, match=r"lower is .*; a fraction like '359/2' is needed"):
        check(tampered(valid, lambda d: d["layers"][0].__setitem__("lower", text)))


def test_checking_imports_no_solver():
    code = (
        "import sys, eplb_gap.problem.certificate; assert not {'ortools', 'pulp', 'highspy', 'numba', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
