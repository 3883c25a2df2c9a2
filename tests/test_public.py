"""What ``eplb_gap`` exports: every name has a docstring with an example that runs, and type checkers see the same names."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import itertools
import re
from pathlib import Path

import pytest

import eplb_gap

ROOT = Path(__file__).resolve().parents[1]
TREE = ast.parse((ROOT / "eplb_gap" / "__init__.py").read_text())
[TABLE] = [
    node.value for node in TREE.body if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["_HOMES"]
]
HOMES = {name: home.split(":") for name, home in ast.literal_eval(TABLE).items()}


def documentation(name: str) -> str:
    """Return the docstring of a public name; of a constant, the text behind its assignment."""
    exported = getattr(eplb_gap, name)
    if callable(exported):
        return exported.__doc__ or ""
    module, defined = HOMES[name]
    body = ast.parse(inspect.getsource(importlib.import_module(f"eplb_gap.{module}"))).body
    for statement, after in itertools.pairwise(body):
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == defined for target in targets):
            assert isinstance(after, ast.Expr)
            assert isinstance(after.value, ast.Constant)
            return str(after.value.value)
    raise AssertionError(f"{module} does not assign {defined}")


@pytest.mark.parametrize("name", eplb_gap.__all__)
def test_every_public_name_has_an_example_that_runs(name: str) -> None:
    test = doctest.DocTestParser().get_doctest(inspect.cleandoc(documentation(name)), {}, name, None, None)
    assert test.examples
    assert name in test.docstring.partition(">>>")[2]
    said: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert result.failed == 0, "".join(said)


def test_type_checkers_see_the_names_that_are_exported() -> None:
    block = next(node for node in TREE.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name: [str(statement.module).removeprefix("eplb_gap."), alias.name]
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert seen == HOMES
    assert sorted(seen) == sorted(eplb_gap.__all__)


def test_dir_lists_public_names_and_rooms_and_nothing_else_is_found() -> None:
    assert set(dir(eplb_gap)) == {*eplb_gap.__all__, "analysis", "experiments", "heuristics", "problem", "solvers"}
    with pytest.raises(AttributeError, match="has no attribute 'rebalence'"):
        _ = eplb_gap.rebalence


def test_the_readme_shows_ones_own_loads_in_ten_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text().partition("## Your own loads")[2]
    [block] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(block.splitlines()) <= 10
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(block, names)
    assert (tmp_path / "location.json").stat().st_size > 1000


@pytest.mark.parametrize("wrong", ["loads.npz", 3, [[[1, 1]]]])
def test_an_argument_of_another_kind_is_named(wrong):
    deployment, placement, trace = (
        eplb_gap.Deployment(2, 2, 2),
        eplb_gap.Placement([[0, 1]], 2),
        eplb_gap.LoadTrace([[[1, 1]]] * 2),
    )
    for name, call in {
        "trace": lambda: eplb_gap.capacity(wrong, deployment, target=0.9),
        "placement": lambda: eplb_gap.verify(wrong, [[1, 1]], deployment),
        "initial": lambda: eplb_gap.solve([[1, 1]], deployment, initial=wrong),
        "previous": lambda: eplb_gap.replan([[1, 1]], deployment, wrong),
        "steps": lambda: eplb_gap.replay(wrong, deployment, []),
    }.items():
        with pytest.raises(eplb_gap.InputError, match=f"{name} is .*; a .* is needed"):
            call()
    with pytest.raises(eplb_gap.InputError, match=r"trace is .*; a LoadTrace is needed"):
        eplb_gap.explain(wrong, deployment)
    for call in (
        lambda: eplb_gap.replan([[1, 1]], wrong, placement),
        lambda: eplb_gap.rebalance([[1, 1]], wrong),
        lambda: eplb_gap.solve([[1, 1]], wrong),
        lambda: eplb_gap.evaluate(trace, wrong),
        lambda: eplb_gap.explain(trace, wrong),
        lambda: eplb_gap.calibrate(trace, wrong),
        lambda: eplb_gap.calibrate_online(trace, wrong),
        lambda: eplb_gap.replay(trace, wrong, []),
        lambda: eplb_gap.score("seed", trace, wrong, "fast"),
        lambda: eplb_gap.sample_average([[[1, 1]]], wrong),
        lambda: eplb_gap.optimal_split(placement, [[1, 1]], wrong),
        lambda: eplb_gap.plan_for_split([[1, 1]], wrong),
        lambda: eplb_gap.read_map("map.json", wrong),
    ):
        with pytest.raises(eplb_gap.InputError, match=r"deployment is .*; a Deployment is needed"):
            call()
