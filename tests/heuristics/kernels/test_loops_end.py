"""Every compiled loop ends by counting: nothing stops a compiled function from outside, neither a clock nor Ctrl-C."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DECORATORS = {"kernel", "entry", "borrower", "tiered", "njit", "jit"}
SIGNS = {ast.Add: 1, ast.Sub: -1, ast.Mult: 1, ast.FloorDiv: -1, ast.RShift: -1, ast.LShift: 1}

REVIEWED = {
    "heuristics/compiled.ascending": (3, "every part is split into smaller ones; scans stop at the ends of the part"),
    "heuristics/dispatch/activated._assign": (
        2,
        "the capacity rises to the active experts, where a GPU is free; a path back through a breadth-first search",
    ),
    "heuristics/planner/pair_swap._sort_gpus": (
        2,
        "Shell's sort: the step falls by thirds, and every element moves down by steps",
    ),
    "heuristics/dispatch/covers.covers": (1, "numbers of as many bits rise to 2 ** count (Gosper)"),
    "heuristics/dispatch/covers.ones": (1, "every turn clears a bit"),
    "heuristics/kernels/assignment._assign": (2, "every turn looks at one more column, and one is free; a path back in a tree"),
    "heuristics/kernels/local_search._common_divisor": (1, "Euclid: the divisor falls"),
    "heuristics/kernels/two_gpu_split._build": (1, "a merge: every turn takes one of the sums of two finished lists"),
    "heuristics/planner/replicate_lpt._sift_down": (1, "every turn goes down a level of the heap"),
    "heuristics/planner/replicate_lpt.replicate": (1, "every turn goes up a level of the heap"),
    "heuristics/planner/replicate_lpt.arrange": (
        3,
        "a power of two rises; every round places a replica, since the counts sum to the slots",
    ),
    "heuristics/planner/theta_counts._threshold_counts": (1, "counts rise to the largest, which fills the slots"),
    "heuristics/programs/swift_balance._keep_slots": (1, "a GPU has as many open slots as experts left for it"),
    "heuristics/serving/split_placement._fill": (1, "every turn moves the window by one expert"),
    "heuristics/serving/split_placement._ring_counts": (1, "counts rise together until no slot is spare"),
    "heuristics/serving/token_split._sweep": (1, "the members fall with every turn"),
    "heuristics/serving/token_split._augment": (2, "a path of a breadth-first search has no circle"),
    "heuristics/serving/window_descent._exchange": (1, "every turn puts one GPU of the node aside"),
    "heuristics/serving/window_descent._hand_over": (2, "a chain through the slots of one expert, ascending"),
    "heuristics/serving/window_descent.descend": (1, "every turn takes from the searches that are left"),
    "heuristics/serving/window_packing.vector_lpt": (1, "every round places a replica, since the counts sum to the slots"),
    "solvers/engines/count_annealing._merge": (1, "every turn places one of the copies left of two experts"),
    "solvers/engines/cover_search._within": (1, "a bisection: the interval of patterns shrinks"),
    "solvers/engines/cover_search._sort": (2, "Shell's sort: the step falls by thirds, and every element moves down by steps"),
    "solvers/engines/cover_search._look_up": (3, "every turn looks at a type, or at one of its ranked shares"),
    "solvers/engines/exact_exchange._exchange": (1, "a bisection: the interval of sums shrinks"),
    "solvers/engines/cover_search._enter": (1, "every turn but the last drops a pattern or a type"),
    "solvers/engines/cover_search._drop_types": (
        2,
        "every turn of the outer loops meets an expert, whose types the inner ones pass",
    ),
    "solvers/engines/gpu_contents.enumerate_patterns": (1, "every turn takes a step, and there is a limit on steps"),
    "solvers/engines/neighbourhood._search": (2, "a limit on the patterns looked at, and each of them is tried once a node"),
    "solvers/engines/neighbourhood._enumerate": (1, "a bisection: the interval of types shrinks"),
}
"""Loops without a counter that the test below understands, by function: how many, and why they end."""


def compiled_functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for room in ("heuristics", "solvers", "problem", "analysis"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef) and DECORATORS & {_name(each) for each in node.decorator_list}:
                    yield f"{path.relative_to(ROOT).with_suffix('')}.{node.name}", node


def _name(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator).rpartition(".")[2]


def counters(test: ast.expr) -> dict[str, int]:
    """Return the variables that end a loop once they have moved far enough, and the direction: +1 up, -1 down.

    Every part of a conjunction ends the loop; one alternative alone does not.
    """
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return {name: sign for part in test.values for name, sign in counters(part).items()}
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1):
        return {}
    left, right, op = test.left, test.comparators[0], test.ops[0]
    if isinstance(op, ast.Gt | ast.GtE):
        left, right = right, left
    elif not isinstance(op, ast.Lt | ast.LtE):
        return {}
    # left < right: ends when what is on the left rises or what is on the right falls.
    found = {}
    if isinstance(left, ast.Name) and not _is_float(right):
        found[left.id] = 1
    if isinstance(right, ast.Name) and not _is_float(left):
        found[right.id] = -1
    return found


def _is_float(node: ast.expr) -> bool:
    return any(
        isinstance(each, ast.Subscript) or (isinstance(each, ast.Constant) and isinstance(each.value, float))
        for each in ast.walk(node)
    )


def _step(node: ast.stmt, moving: dict[str, int]) -> bool:
    """Whether a statement moves a counter towards its end, by a number that is positive in writing."""
    return (
        isinstance(node, ast.AugAssign)
        and isinstance(node.target, ast.Name)
        and SIGNS.get(type(node.op)) == moving.get(node.target.id, 0)
        and _positive(node.value)
    )


def _positive(node: ast.expr) -> bool:
    """A positive whole number, a constant by name, or sums and products with one and sizes that are never negative."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int) and node.value > 0
    if isinstance(node, ast.Name):
        return node.id.isupper() or node.id == "num_gpus"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        sides = _positive(node.left), _positive(node.right)
        return any(sides) if isinstance(node.op, ast.Add) else all(sides)
    return False


def moves(body: list[ast.stmt], moving: dict[str, int]) -> bool:
    """Whether every way through statements moves a counter, or leaves the loop."""
    for node in body:
        if _step(node, moving) or isinstance(node, ast.Break | ast.Return):
            return True
        if isinstance(node, ast.If):
            if moves(node.body, moving) and moves(node.orelse, moving):
                return True
        elif isinstance(node, ast.Continue):
            return False
        if any(isinstance(each, ast.Continue) for each in _of_this_loop(node)) and not isinstance(node, ast.If):
            return False
        if (
            isinstance(node, ast.If)
            and any(isinstance(each, ast.Continue) for each in _of_this_loop(node))
            and not _continues_after_moving(node, moving)
        ):
            return False
    return False


def _continues_after_moving(node: ast.If, moving: dict[str, int]) -> bool:
    return all(
        moves(branch, moving)
        for branch in (node.body, node.orelse)
        if any(isinstance(e, ast.Continue) for s in branch for e in _of_this_loop(s))
    )


def _of_this_loop(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a statement without the loops inside it."""
    yield node
    for inner in ast.iter_child_nodes(node):
        if not isinstance(inner, ast.For | ast.While):
            yield from _of_this_loop(inner)


def is_counted(loop: ast.While) -> bool:
    """Whether every turn moves a counter towards the end that the condition names, and nothing moves it back."""
    moving = counters(loop.test)
    for node in ast.walk(ast.Module(loop.body, [])):
        if (
            isinstance(node, ast.AugAssign)
            and isinstance(node.target, ast.Name)
            and not (SIGNS.get(type(node.op)) == moving.get(node.target.id) or node.target.id not in moving)
        ):
            del moving[node.target.id]
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.For | ast.NamedExpr):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for each in (
                name.id
                for target in targets
                for name in ast.walk(target)
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
            ):
                moving.pop(each, None)
    return bool(moving) and moves(loop.body, moving)


FUNCTIONS = dict(compiled_functions())


def uncounted(function: ast.FunctionDef) -> list[int]:
    return [node.lineno for node in ast.walk(function) if isinstance(node, ast.While) and not is_counted(node)]


def test_the_functions_are_found():
    assert len(FUNCTIONS) > 120
    assert "solvers/engines/cover_search.advance" in FUNCTIONS
    assert sum(isinstance(node, ast.While) for function in FUNCTIONS.values() for node in ast.walk(function)) > 60


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_loop_is_counted_or_argued_for(name):
    lines = uncounted(FUNCTIONS[name])
    number, why = REVIEWED.get(name, (0, ""))
    assert len(lines) == number, f"{name}: loops without a counter at lines {lines}; the reviewed ones are {number}: {why}"


def test_no_review_is_stale():
    assert set(REVIEWED) <= set(FUNCTIONS)
    assert all(number > 0 and why for number, why in REVIEWED.values())


@pytest.mark.parametrize(
    "source",
    [
        "while best > stop:\n    best = look(best)",
        "while True:\n    if a > b:\n        break",
        "while i < n:\n    if a[i] > b:\n        i += 1",
        "while i < n:\n    if odd:\n        continue\n    i += 1",
        "while i < n:\n    i -= 1",
        "while i < n:\n    i += 1\n    i = first",
        "while a < n or b < n:\n    a += 1",
        "while best > stop:\n    best -= gain",
    ],
)
def test_other_loops_are_not(source):
    assert not is_counted(ast.parse(source).body[0])


@pytest.mark.parametrize(
    "source",
    [
        "while at > 0 and keys[at - 1] < key:\n    at -= 1",
        "while a < end and b < last:\n    if x:\n        b += 1\n    else:\n        a += 1",
        "while best > stop and steps < most:\n    steps += 1\n    if x:\n        continue\n    best = y",
        "while width < n:\n    width *= 2",
    ],
)
def test_counted_loops_are(source):
    assert is_counted(ast.parse(source).body[0])
