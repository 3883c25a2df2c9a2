"""The code that a measurement rests on, as one digest: a row that other code made does not count as done.

Of a cell's own module only what its function reaches counts, so that a study's tables may change without its rows; of the
project's modules that this imports, directly or not, in functions or not, everything does. Files are read as they lie there,
known to git or not, and git is not asked: a commit that touches no such file changes nothing.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DIGITS = 16
"""Hexadecimal digits that are kept."""
PACKAGES = ("numpy", "torch", "ortools", "pulp", "highspy", "numba")
"""Libraries that decide what a planner or a solver finds."""
PACKAGE = Path(__file__).absolute().parents[2]


@dataclass(frozen=True)
class Source:
    """A file, parsed."""

    lines: list[str]
    tree: ast.Module
    digest: str


@cache
def _read(path: Path, _changed: tuple[int, int]) -> Source:
    content = path.read_bytes()
    text = content.decode()
    return Source(text.splitlines(), ast.parse(text), hashlib.sha256(content).hexdigest())


def read(path: Path) -> Source:
    """Return a file as it is now."""
    stat = path.stat()
    return _read(path, (stat.st_mtime_ns, stat.st_size))


class Project:
    """A package and its modules.

    Parameters
    ----------
    folder : Path
        Of the package; its name is the package's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mentioned = re.compile(rf"\b{folder.name}(?:\.\w+)+")
        self._imports: dict[str, set[str]] = {}

    def path(self, module: str) -> Path | None:
        """Return the file of a module of the project; None for every other name."""
        name, *parts = module.split(".")
        if name != self._folder.name:
            return None
        at = self._folder.joinpath(*parts)
        files = at / "__init__.py", at.with_name(f"{at.name}.py")
        return next((file for file in files if file.is_file()), None)

    def imports(self, nodes: Iterable[ast.AST], package: str) -> set[str]:
        """Return the project's modules that code imports, the packages that they are in, and those that its strings name.

        Strings, which start child processes by module, count; docstrings do not.
        """
        return {part for name in self._names(nodes, package) for part in {name, *_packages(name)} if self.path(part)}

    def _names(self, nodes: Iterable[ast.AST], package: str) -> Iterator[str]:
        walked = [inner for outer in nodes for inner in ast.walk(outer)]
        docstrings = {node.value for node in walked if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
        for node in walked:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
                module = ".".join([*above, *([node.module] if node.module else [])])
                yield from (f"{module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                yield from self._mentioned.findall(node.value)

    def closure(self, start: set[str]) -> dict[str, Path]:
        """Return modules and all that they import, by name."""
        found: dict[str, Path] = {}
        waiting = set(start)
        while waiting:
            module = waiting.pop()
            path = self.path(module)
            if path is None or module in found:
                continue
            found[module] = path
            if module not in self._imports:
                package = module if path.name == "__init__.py" else module.rpartition(".")[0]
                self._imports[module] = self.imports([read(path).tree], package)
            waiting |= self._imports[module]
        return found

    def code(self, function: Callable[..., Any]) -> str:
        """Return the digest of what a function's module defines for it and of every project module that this imports."""
        module = sys.modules.get(function.__module__)
        file = getattr(module, "__file__", None)
        parts = [function.__module__, function.__qualname__]
        if file is not None:
            source, package = read(Path(file)), getattr(module, "__package__", None) or ""
            own = reached(source.tree, function.__qualname__)
            parts += [_text(node, source) for node in own]
            modules = self.closure(self.imports(own, package) | _packages(function.__module__))
            parts += [f"{name} {read(path).digest}" for name, path in sorted(modules.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _packages(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def reached(tree: ast.Module, name: str) -> list[ast.stmt]:
    """Return the statements of a module that a function of it needs: those that bind a name it uses, and theirs.

    Statements that bind nothing, such as calls, always count; docstrings never; of an import what is used. All count where the
    module itself defines no such function.
    """
    binders: dict[str, list[ast.stmt]] = {}
    needed = set()
    for node in tree.body:
        names = _bound(node)
        for bound in names:
            binders.setdefault(bound, []).append(node)
        if not names and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            needed.add(node)
    if name not in binders:
        return tree.body
    waiting = {name, *(used for node in needed for used in _used(node))}
    seen: set[str] = set()
    while waiting:
        used = waiting.pop()
        seen.add(used)
        for node in binders.get(used, []):
            if node not in needed:
                needed.add(node)
                waiting |= _used(node) - seen
    return [_only(node, seen) for node in tree.body if node in needed]


def _only(node: ast.stmt, used: set[str]) -> ast.stmt:
    """Return an import without the names that are not used; any other statement as it is."""
    if not isinstance(node, ast.Import | ast.ImportFrom):
        return node
    names = [alias for alias in node.names if alias.name == "*" or (alias.asname or alias.name).split(".")[0] in used]
    return ast.Import(names) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, names, node.level)


def _bound(node: ast.stmt) -> set[str]:
    """Return the names of a module that a statement binds or changes."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names} - {"*"}
    if isinstance(node, ast.Assign):
        return {name for target in node.targets for name in _used(target)}
    if isinstance(node, ast.AnnAssign | ast.AugAssign):
        return _used(node.target)
    inner = [child for child in ast.walk(node) if isinstance(child, ast.stmt) and child is not node]
    return {name for child in inner for name in _bound(child)}


def _used(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _text(node: ast.stmt, source: Source) -> str:
    """Return the lines of a statement, decorators included."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return ast.unparse(node)
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return "\n".join(source.lines[first - 1 : node.end_lineno])


OURS = Project(PACKAGE)


@cache
def _code(function: Callable[..., Any]) -> str:
    return OURS.code(function)


@cache
def versions() -> dict[str, str]:
    """Return the versions of the libraries that decide results."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def digest(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """Return what stands for a call: the function's code, its arguments, and the versions of the solvers.

    Read once per function and process: what a process measures is the code that it has loaded.

    Parameters
    ----------
    function : callable
        Defined by a module.
    arguments : mapping
        What JSON cannot hold counts by its ``repr``.
    """
    call = json.dumps([_code(function), dict(arguments), versions()], sort_keys=True, default=repr)
    return hashlib.sha256(call.encode()).hexdigest()[:DIGITS]
