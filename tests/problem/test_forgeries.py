"""Certificates that lie: what the check reads of every kind of witness is changed in every way, and it never believes a lie.

A change is either refused by name, or what is still said is true: the bound lies at or below the optimum, or it is a claim and
called one.
"""

from __future__ import annotations

import base64
import copy
import json
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap.problem import Deployment, InputError, Placement, PlacementError, verify
from eplb_gap.problem.bounds import pairing_tree
from eplb_gap.problem.bounds.sample_average import AVERAGES
from eplb_gap.problem.certificate import CertificateError, Verdict, check
from eplb_gap.problem.proofs import PROOFS
from eplb_gap.solvers import Solution, solve

LIES = (InputError, PlacementError, CertificateError)
Document = dict[str, Any]

MADE_BY = {
    "mean": ("auto", Deployment(20, 28, 4), 0),
    "capacity": ("bounds", Deployment(6, slots_per_gpu=[1, 5, 4]), 0),
    "apportionment": ("bounds", Deployment(5, slots_per_gpu=[1, 3, 2]), 2),
    "slot counting": ("auto", Deployment(4, 4, 2), 0),
    "forced counts": ("auto", Deployment(6, 8, 4), 2),
    "replayed search": ("exact-cover", Deployment(12, 18, 6), 8),
    "pairing dual": ("pairing", Deployment(16, 20, 10), 5),
    "pairing tree": ("pairing", Deployment(16, 20, 10), 7),
    "pattern dual": ("patterns", Deployment(12, 16, 4), 5),
    "hierarchical": ("auto", Deployment(8, 12, 4, 2, 4), 1),
    "exhausted search": ("auto", Deployment(5, slots_per_gpu=[1, 3, 2]), 1),
    "claim": ("cpsat", Deployment(6, 9, 3), 6),
}
"""Method, deployment and seed of the loads of a certificate with each kind of proof."""
TRUSTED = [kind for kind in MADE_BY if PROOFS[kind].trust == "recomputed"]


def loads_of(experts: int, seed: int) -> list[int]:
    """Return lognormal loads of one layer."""
    generator = np.random.default_rng(seed)
    return [round(100 * float(x)) for x in np.exp(generator.normal(size=experts) * (0.6 if seed % 2 else 1.2))]


def solved(kind: str) -> Solution:
    """Return a solution whose first bound is of a kind."""
    method, deployment, seed = MADE_BY[kind]
    found = solve([loads_of(deployment.num_experts, seed)], deployment, method, time_limit=20)
    assert found.bounds[0].kind == kind
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of all kinds, as ``solve`` writes them."""
    made = tmp_path_factory.mktemp("certificates")
    for kind in MADE_BY:
        solved(kind).save(made / f"{kind}.json")
    return made


@pytest.fixture(scope="module")
def documents(folder: Path) -> dict[str, Document]:
    """The same as JSON."""
    return {kind: json.loads((folder / f"{kind}.json").read_text()) for kind in MADE_BY}


@pytest.fixture(scope="module")
def optima(documents: dict[str, Document]) -> dict[str, Fraction]:
    """The optimum of every one of them."""
    found = {}
    for kind, document in documents.items():
        deployment = Deployment(**document["deployment"])
        exact = solve(document["loads"], deployment, "oracle" if deployment.num_slots <= 12 else "auto", time_limit=20)
        assert exact.status == ["optimal"]
        found[kind] = exact.upper[0]
    return found


@pytest.fixture
def verdict_of(tmp_path: Path) -> Callable[[Any], Verdict]:
    """Return the verdict on a document or a text."""

    def judged(document: Any) -> Verdict:
        path = tmp_path / "forged.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
        return check(path)

    return judged


def refusal(judged: Callable[[Any], Verdict], document: Any) -> str:
    """Return why a document is refused, which is one printable line that blames no field in general."""
    with pytest.raises(LIES) as error:
        judged(document)
    text = str(error.value)
    assert text.isprintable()
    assert "malformed" not in text
    return text


def test_solve_makes_a_certificate_of_every_kind_of_proof() -> None:
    assert set(MADE_BY) == set(PROOFS) - set(AVERAGES)  # no certificate holds those


def test_all_hold_and_only_claims_are_claims(documents: dict[str, Document], verdict_of: Any) -> None:
    for kind, document in documents.items():
        verdict = verdict_of(document)
        assert (verdict.states == ["claimed"]) == (kind not in TRUSTED)
    assert sum(verdict_of(documents[kind]).optimal for kind in TRUSTED) >= 8


def test_all_are_verified_where_no_solver_can_be_imported(folder: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('ortools', 'pulp', 'highspy', 'scipy', 'torch', 'numba'):\n"
        "    sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from eplb_gap.problem.certificate import check\n"
        f"for path in sorted(Path({str(folder)!r}).glob('*.json')):\n"
        "    print(path.stem, *check(path).states, sep=',')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    states = dict(line.split(",") for line in done.stdout.splitlines())
    assert set(states) == set(MADE_BY)
    assert {kind for kind, state in states.items() if state == "claimed"} == set(MADE_BY) - set(TRUSTED)


# Every leaf, changed in every way.

Path_ = tuple[str | int, ...]


def all_of(documents: dict[str, Document], kind: str) -> Iterator[tuple[Path_, Any]]:
    """Yield every value of a certificate with its path, what is common to all kinds for one kind only."""
    whole = documents[kind]
    return nodes_of(whole) if kind == "capacity" else nodes_of(whole["layers"], ("layers",))


def nodes_of(value: Any, at: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Yield every value of a document with its path; of lists the first and the last entry."""
    yield at, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from nodes_of(inner, (*at, name))
    elif isinstance(value, list):
        for index in sorted({0, len(value) - 1} & set(range(len(value)))):
            yield from nodes_of(value[index], (*at, index))


def changed(document: Document, at: Path_, value: Any) -> Document:
    """Return a copy with another value at a path."""
    copied = copy.deepcopy(document)
    inner: Any = copied
    for step in at[:-1]:
        inner = inner[step]
    inner[at[-1]] = value
    return copied


def is_fraction(value: str) -> bool:
    """Return whether a text is a fraction."""
    return all(part.isdecimal() for part in value.split("/"))


def other_kinds(value: Any) -> list[Any]:
    """Return values of other types, or of no type that is read: none of them can stand where the value does."""
    wrong: list[Any] = [None, {}, {"0": value}, 0.5, 1e300]
    if isinstance(value, int):
        wrong += [float(value), str(value), bool(value % 2), [value], 10**30, -(10**30), "1e999999999"]
    elif isinstance(value, str):
        wrong += [7, True, [value], "", value + "\n", value + "\x1b[2K", "\u202e" + value, "\ud800"]
        if is_fraction(value):
            twice = Fraction(value) * 2
            wrong += [
                f"{twice.numerator * 3}/{twice.denominator * 3}",
                "1e999999999",
                f"0{value}",
                "-1",
                "1/0",
                "nan",
                "0.5",
                "9" * 2001,
            ]
    elif isinstance(value, list):
        wrong += [7, "1", True, [[[]]], dict.fromkeys(map(str, range(len(value))))]
    else:
        wrong += [[], [value], 7, "mean", True]
    # An empty object may be the parameters of a solver; a text may have another text's form.
    return [each for each in wrong if each != value or type(each) is not type(value)]


def near(value: Any) -> list[Any]:
    """Return values that might stand where the value does: they may hold, if what is said stays true."""
    if isinstance(value, int):
        return [value + 1, value - 1, 0, 2 * value + 1]
    if isinstance(value, str) and is_fraction(value):
        own = Fraction(value)
        far = Fraction(own.numerator * 10**900 + 1, own.denominator), own + Fraction(1, 10**900)
        return [str(new) for new in (own + 1, own - 1, own + Fraction(1, 7), own * 2, own / 2, *far, Fraction(0)) if new >= 0]
    if isinstance(value, str):
        return [value[:-1], value[::-1], "mean", "claim"]
    return [value[:-1], value[1:], [*value, *value[-1:]], value[::-1], []] if isinstance(value, list) else []


FREE = ("parameters", "version", "solver")
"""What a claim says of its solver: any plain text, plain values."""


def must_be_refused(at: Path_, value: Any) -> bool:
    """Return whether a value of another type at this path is a lie for certain."""
    if at[-1] == "solver" or at[-1] == "version":
        return not (isinstance(value, str) and 0 < len(value) <= 200 and value.isascii() and value.isprintable())
    if len(at) > 1 and at[-2] == "parameters":
        return value is None or isinstance(value, dict | list) or abs(value if not isinstance(value, str) else 0) > 1 << 63
    return value != {} or (at[-1] != "parameters" and at[2:] != ("witness",))


@pytest.mark.parametrize("kind", MADE_BY)
def test_a_leaf_of_another_type_is_refused_by_name(kind: str, documents: dict[str, Document], verdict_of: Any) -> None:
    refused = 0
    for at, value in all_of(documents, kind):
        for wrong in other_kinds(value) if at else ():
            if must_be_refused(at, wrong):
                refusal(verdict_of, changed(documents[kind], at, wrong))
                refused += 1
    assert refused > 40


@pytest.mark.parametrize("kind", MADE_BY)
def test_a_field_too_many_or_too_few_or_twice_is_refused(kind: str, documents: dict[str, Document], verdict_of: Any) -> None:
    optional = set(PROOFS[kind].optional)
    for at, value in all_of(documents, kind):
        if not isinstance(value, dict) or at[-1:] == ("parameters",):
            continue
        more = copy.deepcopy(documents[kind]) if not at else changed(documents[kind], at, {**value, "note": "trust me"})
        if not at:
            more["note"] = "trust me"
        assert "unknown field 'note'" in refusal(verdict_of, more)
        for name in value:
            fewer = {other: inner for other, inner in value.items() if other != name}
            if name not in optional:
                text = refusal(verdict_of, fewer if not at else changed(documents[kind], at, fewer))
                assert f"no field {name!r}" in text or "no schema" in text or at == ("deployment",)
            twice = {**value, "\x00": value[name]}
            doubled = json.dumps(twice if not at else changed(documents[kind], at, twice)).replace('"\\u0000"', json.dumps(name))
            assert f"holds a key twice: {name!r}" in refusal(verdict_of, doubled)


@pytest.mark.parametrize("kind", MADE_BY)
def test_a_leaf_with_another_value_is_refused_or_what_is_said_is_true(
    kind: str, documents: dict[str, Document], optima: dict[str, Fraction], verdict_of: Any
) -> None:
    document, refused, held = documents[kind], 0, 0
    for at, value in all_of(documents, kind):
        if not at or at[0] == "deployment":
            continue  # another problem: forged below by name
        for forged in near(value):
            if forged == value:
                continue
            try:
                verdict = verdict_of(changed(document, at, forged))
            except LIES as error:
                assert str(error).isprintable() and "malformed" not in str(error)
                refused += 1
                continue
            held += 1
            assert at[0] not in ("loads", "loads_sha256", "schema")
            assert verdict.states == ["claimed"] or verdict.lower[0] <= optima[kind] <= verdict.upper[0]
            assert verdict.states != ["claimed"] or kind not in TRUSTED or forged in ("claim", "exhausted search")
    assert refused > 10


def unpacked(document: Document) -> Any:
    """Return the tree inside a certificate."""
    return json.loads(zlib.decompress(base64.b64decode(document["layers"][0]["witness"]["tree"])))


def repacked(document: Document, tree: Any) -> Document:
    """Return the certificate with another tree."""
    text = base64.b64encode(zlib.compress(json.dumps(tree).encode())).decode()
    forged = changed(document, ("layers", 0, "witness", "tree"), text)
    forged["layers"][0]["witness"]["nodes"] = len(tree["nodes"])
    return forged


def test_a_leaf_of_a_packed_tree_is_read_too(
    documents: dict[str, Document], optima: dict[str, Fraction], verdict_of: Any
) -> None:
    document = documents["pairing tree"]
    tree, refused = unpacked(document), 0
    for at, value in nodes_of(tree):
        for forged in [*near(value), *other_kinds(value)] if at else ():
            if forged == value and type(forged) is type(value):
                continue
            try:
                new = changed(tree, at, forged)
                verdict = verdict_of(repacked(document, new) if isinstance(new["nodes"], list) else document | {"layers": []})
            except LIES as error:
                assert "malformed" not in str(error)
                refused += 1
            else:
                assert verdict.lower[0] <= optima["pairing tree"]
                assert type(forged) is type(value)
    assert refused > 100


# Lies with a meaning, each by hand.


def raised(document: Document, by: Fraction) -> Document:
    """Return a certificate of a worse map, with a bound between the optimum and its makespan."""
    forged = copy.deepcopy(document)
    deployment = Deployment(**forged["deployment"])
    order = sorted(range(deployment.num_slots), key=lambda slot: forged["phy2log"][0][slot])
    if deployment.policy == "global":
        forged["phy2log"] = [[forged["phy2log"][0][slot] for slot in order]]
    else:
        half = deployment.slots_per_node
        forged["phy2log"] = [[*sorted(forged["phy2log"][0][:half]), *sorted(forged["phy2log"][0][half:])]]
    upper = verify(Placement(forged["phy2log"], deployment.num_experts), forged["loads"], deployment)[0]
    lower = Fraction(forged["layers"][0]["lower"]) + by
    assert lower <= upper
    forged["layers"][0].update(upper=str(upper), lower=str(lower))
    return forged


@pytest.mark.parametrize("kind", TRUSTED)
def test_a_bound_above_what_the_witness_proves(kind: str, documents: dict[str, Document], verdict_of: Any) -> None:
    gap = Fraction(1, 7)
    assert verdict_of(raised(documents[kind], Fraction(0))).states == ["open"]
    text = refusal(verdict_of, raised(documents[kind], gap))
    assert "witness proves" in text or "bounds all lie below" in text or "proves nothing" in text


def first(document: Document) -> Document:
    """Return a copy, to be changed in its first layer."""
    return copy.deepcopy(document)


def lie(document: Document, **said: Any) -> Document:
    """Return a copy that says something else of its first layer."""
    forged = first(document)
    forged["layers"][0].update(said)
    return forged


def witness(document: Document, **said: Any) -> Document:
    """Return a copy with other fields of its first witness."""
    forged = first(document)
    forged["layers"][0]["witness"].update(said)
    return forged


def other_deployment(document: Document, **said: Any) -> Document:
    """Return a copy on another deployment."""
    forged = first(document)
    forged["deployment"].update(said)
    return forged


def shifted(document: Document, step: Fraction) -> Document:
    """Return a pairing dual with all multipliers lowered by a step."""
    entries = document["layers"][0]["witness"]["multipliers"]
    return witness(document, multipliers=[[p, str(max(Fraction(0), Fraction(m) - step))] for p, m in entries])


def scaled_prices(document: Document) -> Document:
    """Return a pattern dual with the dearer half of its prices doubled."""
    prices = document["layers"][0]["witness"]["proof"]
    half = len(prices) // 2
    return witness(document, proof=[*prices[:half], *([load, 2 * price] for load, price in prices[half:])])


def without_node(document: Document) -> Document:
    """Return a bound over nodes without the strongest proof of one."""
    nodes = document["layers"][0]["witness"]["nodes"]
    searched = next(node for node in nodes if node["kind"] == "replayed search")
    return witness(document, nodes=[node for node in nodes if node is not searched])


def tree_without_leaf(document: Document) -> Document:
    """Return a pairing tree that leaves one case out."""
    tree = unpacked(document)
    return repacked(document, {**tree, "nodes": tree["nodes"][:-1]})


def log_cut_off(document: Document) -> Document:
    """Return a replayed search whose log lacks its last node."""
    said = document["layers"][0]["witness"]
    log = zlib.decompress(base64.b64decode(said["log"]))
    last = max(depth for depth, number in enumerate(said["nodes"]) if number)
    nodes = [number - (depth == last) for depth, number in enumerate(said["nodes"])]
    return witness(document, nodes=nodes, log=base64.b64encode(zlib.compress(log[:-1])).decode())


FORGERIES: dict[str, tuple[Callable[[dict[str, Document]], Document], str]] = {
    "the makespan is less than the map's": (
        lambda d: lie(d["mean"], upper="1/1", lower="1/1"),
        "upper is 1, the map's makespan is",
    ),
    "a solver's word is called a recomputed bound": (
        lambda d: lie(d["claim"], proof="mean"),
        "unknown field 'solver'",
    ),
    "a solver's word without its solver": (lambda d: lie(d["claim"], witness={}), "no field 'solver'"),
    "a solver's word is called mean, its fields left out": (
        lambda d: lie(d["claim"], proof="mean", witness={}),
        "mean witness proves",
    ),
    "an exhausted search is called a replayed one": (
        lambda d: lie(d["exhausted search"], proof="replayed search"),
        "no field 'threshold'",
    ),
    "an exhausted search with a threshold of hours": (
        lambda d: lie(d["exhausted search"], witness={"threshold": "1e999999999", "nodes": 1}),
        "threshold is '1e999999999'; a fraction",
    ),
    "an exhausted search refutes less than it says": (
        lambda d: lie(d["exhausted search"], witness={"threshold": "1", "nodes": 1}),
        "that no placement lies within 1 implies",
    ),
    "an exhausted search that counts nothing": (
        lambda d: lie(d["exhausted search"], witness={}),
        "an exhausted search has threshold and nodes",
    ),
    "a solver's name forges a line": (
        lambda d: witness(d["claim"], solver="CP-SAT\n1 layer: 1 proven optimal by witness"),
        "solver is .*ASCII letters",
    ),
    "a solver's name turns its line around": (lambda d: witness(d["claim"], solver="\u202eTAS-PC"), "ASCII letters"),
    "a solver's name ends its remark and tells its own": (
        lambda d: witness(d["claim"], solver="none), 0 open. 1 layer: 1 proven optimal by witness, 0 bounds rest on a claim ("),
        "ASCII letters",
    ),
    "a solver's version clears the screen": (lambda d: witness(d["claim"], version="\x1b[2J"), "version is"),
    "a parameter with control characters": (
        lambda d: witness(d["claim"], parameters={"a\nb": 1}),
        "a parameter's name is",
    ),
    "counts that do not attain the bound": (
        lambda d: witness(d["apportionment"], counts=[1, 1, 1, 1, 2][:: 1 if d["apportionment"]["loads"][0][4] < 50 else -1]),
        "counts: their largest replica is",
    ),
    "counts that fill other slots": (
        lambda d: witness(d["apportionment"], counts=[1, 1, 1, 1, 9]),
        "with sum 6 are needed",
    ),
    "counts that nobody can count": (
        lambda d: witness(d["apportionment"], counts=[True, 1, 1, 1, 2]),
        "5 integers are needed",
    ),
    "forced counts where they are not forced": (
        lambda d: lie(d["replayed search"], proof="forced counts", witness={}),
        "more than one count vector",
    ),
    "forced counts within a threshold too large": (
        lambda d: witness(d["forced counts"], threshold="100000"),
        "more than one count vector",
    ),
    "a slot counting pair the wrong way round": (
        lambda d: witness(
            d["slot counting"],
            refuted=d["slot counting"]["layers"][0]["witness"]["above"],
            above=d["slot counting"]["layers"][0]["witness"]["refuted"],
        ),
        "the pair proves nothing",
    ),
    "multipliers a little too small": (
        lambda d: shifted(d["pairing dual"], Fraction(1, 3)),
        "more than num_slots = 20 refute it",
    ),
    "multipliers that rise": (
        lambda d: witness(
            d["pairing dual"],
            multipliers=[
                [p, str(Fraction(m) + number)]
                for number, (p, m) in enumerate(d["pairing dual"]["layers"][0]["witness"]["multipliers"])
            ],
        ),
        "must not rise",
    ),
    "the pairing dual of another instance": (
        lambda d: lie(d["pairing tree"], proof="pairing dual", witness=d["pairing dual"]["layers"][0]["witness"]),
        "pairing dual|pairing dual witness proves",
    ),
    "a pairing tree without one of its leaves": (
        lambda d: tree_without_leaf(d["pairing tree"]),
        "cases are left open",
    ),
    "a pairing tree of a higher threshold": (
        lambda d: witness(d["pairing tree"], threshold=d["pairing tree"]["layers"][0]["upper"].removesuffix("/1")),
        "pairing tree",
    ),
    "a log cut off": (lambda d: log_cut_off(d["replayed search"]), "replayed search: the log"),
    "a log with depths that nobody reads": (
        lambda d: witness(d["replayed search"], nodes=[*d["replayed search"]["layers"][0]["witness"]["nodes"], 0, 0, 0]),
        "fills 6 GPUs",
    ),
    "a log of another threshold": (
        lambda d: witness(d["replayed search"], threshold=d["replayed search"]["layers"][0]["upper"].removesuffix("/1")),
        "replayed search",
    ),
    "prices scaled in part": (lambda d: scaled_prices(d["pattern dual"]), "do not prove"),
    "the makespan next to a threshold left out of sight": (
        lambda d: witness(d["pattern dual"], next="1"),
        "a value above the threshold",
    ),
    "a node is missing": (lambda d: without_node(d["hierarchical"]), "bounds all lie below"),
    "a node twice": (
        lambda d: witness(d["hierarchical"], nodes=2 * d["hierarchical"]["layers"][0]["witness"]["nodes"]),
        "is listed twice",
    ),
    "a node of groups .9 and 2": (
        lambda d: changed(d["hierarchical"], ("layers", 0, "witness", "nodes", 0, "groups"), [0.9, 2]),
        "ascending order",
    ),
    'a node of groups "0" and "1"': (
        lambda d: changed(d["hierarchical"], ("layers", 0, "witness", "nodes", 0, "groups"), ["0", "1"]),
        "ascending order",
    ),
    "a node that proves nothing for the bound": (
        lambda d: changed(d["hierarchical"], ("layers", 0, "witness", "nodes", 0, "value"), "1"),
        "is below lower",
    ),
    "a flat bound that says hierarchical": (
        lambda d: lie(d["mean"], proof="hierarchical", witness={"nodes": []}),
        "without nodes proves nothing",
    ),
    "the bound of an average": (lambda d: lie(d["mean"], proof="sum"), "proves nothing"),
    "other GPUs are dead": (
        lambda d: other_deployment(d["capacity"], active=[False, True, True]),
        "map's makespan is|has no replica|are active",
    ),
    "other slots of the GPUs": (
        lambda d: other_deployment(d["capacity"], slots_per_gpu=[2, 4, 4]),
        "map's makespan is",
    ),
    "slots of GPUs that are all alike": (
        lambda d: other_deployment(d["mean"], slots_per_gpu=[7, 7, 7, 7], active=[True] * 4),
        "given together",
    ),
    "flags for numbers": (lambda d: other_deployment(d["mean"], num_nodes=True), "num_nodes is True"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forgery_is_refused_by_name(forgery: str, documents: dict[str, Document], verdict_of: Any) -> None:
    make, message = FORGERIES[forgery]
    assert re.search(message, refusal(verdict_of, make(documents)))


def test_a_bound_without_duplicates_does_not_hold_with_them(tmp_path: Path, verdict_of: Any) -> None:
    loads = [[857, 808, 57]]
    forbidden, allowed = (solve(loads, Deployment(3, 4, 2, duplicates=rule)) for rule in ("forbidden", "allowed"))
    assert forbidden.status == allowed.status == ["optimal"]
    assert forbidden.upper > allowed.upper
    forbidden.save(tmp_path / "c.json")
    document = json.loads((tmp_path / "c.json").read_text())
    assert verdict_of(document).optimal == 1
    assert "layer 0: " in refusal(verdict_of, other_deployment(document, duplicates="allowed"))


def test_a_claim_is_an_error_where_none_is_allowed(folder: Path) -> None:
    for kind in MADE_BY:
        if kind in TRUSTED:
            assert check(folder / f"{kind}.json", no_claims=True).claims == []
            continue
        said = "exhausted search of this project" if kind == "exhausted search" else "claim of CP-SAT "
        with pytest.raises(CertificateError, match=f"1 claim.* where none is allowed: layer 0: .* by {said}"):
            check(folder / f"{kind}.json", no_claims=True)


def test_layers_with_each_others_witnesses_are_refused(tmp_path: Path, verdict_of: Any) -> None:
    found = solve([loads_of(16, 5), loads_of(16, 3)], Deployment(16, 20, 10), "pairing", time_limit=20)
    found.save(tmp_path / "c.json")
    document = json.loads((tmp_path / "c.json").read_text())
    assert verdict_of(document).states == ["optimal", "optimal"]
    one, other = document["layers"]
    one["witness"], other["witness"] = other["witness"], one["witness"]
    assert "layer 0: pairing dual" in refusal(verdict_of, document)


def test_a_tree_that_nobody_would_read_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    before = solved("pairing tree")
    monkeypatch.setattr(pairing_tree, "MAX_TEXT", 1)
    after = solve(before.loads, before.deployment, MADE_BY["pairing tree"][0], time_limit=1)
    assert after.bounds[0].kind != "pairing tree"
    assert after.lower <= before.upper <= after.upper


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_what_solve_writes_is_read_back_and_holds(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    gpus, slots = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    experts = data.draw(st.integers(1, gpus * slots))
    rules = ["allowed", "forbidden"] if slots <= experts else ["allowed"]
    deployment = Deployment(experts, gpus * slots, gpus, duplicates=data.draw(st.sampled_from(rules)))
    hot = st.sampled_from([0, 1, 7, 10**6, 10**15])
    loads = data.draw(st.lists(st.one_of(st.integers(0, 300), hot), min_size=experts, max_size=experts))
    methods = ["auto", "bounds", "oracle"] if gpus * slots <= 8 else ["auto", "bounds"]
    methods += {2: ["pairing"], 3: ["patterns"], 4: ["patterns"]}.get(slots, [])
    found = solve([loads], deployment, data.draw(st.sampled_from(methods)), time_limit=0.5)
    path = tmp_path_factory.mktemp("c") / "c.json"
    found.save(path)
    verdict = check(path)
    assert (verdict.upper, verdict.lower) == (found.upper, found.lower)
