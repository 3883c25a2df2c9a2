"""A package of which only chosen modules are real: the others are shells that can be imported, named and subclassed.

Serving systems import compiled kernels, GPU libraries and half of themselves for two hundred lines of Python. :func:`shell` puts
a finder before Python's own which takes the chosen modules from an unpacked wheel and makes every other one of the same packages
a shell: it has what a test hands in, and whatever else is asked of it is a class without content, which takes any arguments.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any


class Hollow(type):
    """Class of what a shell hands out: a class whose attributes are such classes again."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        inner = hollow(name)
        setattr(cls, name, inner)
        return inner


def hollow(name: str) -> Hollow:
    """Return a class without content that takes any arguments."""
    return Hollow(name, (), {"__init__": lambda self, *given, **named: None})


class ShellModule(ModuleType):
    """A module that has whatever is asked of it.

    Parameters
    ----------
    name : str
    finder : ShellFinder
        Knows which of its submodules are real.
    """

    def __init__(self, name: str, finder: ShellFinder) -> None:
        super().__init__(name)
        self.__finder = finder

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self.__finder.is_real(f"{self.__name__}.{name}"):
            raise AttributeError(name)  # on which "from ... import" looks for the module of that name
        inner = hollow(name)
        setattr(self, name, inner)
        return inner


class ShellFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of packages that are shells but for some.

    Parameters
    ----------
    root : Path
        The unpacked wheel.
    real : sequence of str
        Names of modules to take from it; ``*`` stands for any text.
    packages : sequence of str
        Top-level packages that are found here and nowhere else.
    given : mapping of str to mapping
        Attributes of shells by the full name of the module.
    """

    def __init__(self, root: Path, real: Sequence[str], packages: Sequence[str], given: Mapping[str, Mapping[str, Any]]) -> None:
        self.root, self.real, self.packages, self.given = root, tuple(real), frozenset(packages), given

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Return where a module is to be had; None for those of other packages."""
        if fullname.partition(".")[0] not in self.packages:
            return None
        if self.is_real(fullname):
            place = self.root.joinpath(*fullname.split("."))
            if (place / "__init__.py").is_file():
                return importlib.util.spec_from_file_location(
                    fullname, place / "__init__.py", submodule_search_locations=[str(place)]
                )
            if place.with_suffix(".py").is_file():
                return importlib.util.spec_from_file_location(fullname, place.with_suffix(".py"))
            raise ModuleNotFoundError(f"No module named {fullname!r} in {self.root.name}", name=fullname)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def is_real(self, fullname: str) -> bool:
        """Return whether a module is taken from the wheel."""
        return any(fnmatchcase(fullname, pattern) for pattern in self.real)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return a shell."""
        return ShellModule(spec.name, self)

    def exec_module(self, module: ModuleType) -> None:
        """Set what was given for a shell."""
        for name, value in self.given.get(module.__name__, {}).items():
            setattr(module, name, value)


def shell(
    root: Path,
    real: Sequence[str],
    packages: Sequence[str],
    given: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Let this process import chosen modules of an unpacked wheel, and shells for the rest of the packages.

    Parameters
    ----------
    root : Path
        Of :func:`eplb_gap.experiments.hosts.packages.unpacked`.
    real : sequence of str
        Names of modules to take from it, such as ``vllm.distributed.eplb.*``; ``*`` stands for any text, dots too. A module that
        is named exactly and is not there cannot be imported.
    packages : sequence of str
        Top-level packages that are found there and nowhere else; a package that the host needs and this machine lacks can be one.
    given : mapping of str to mapping, optional
        Attributes of modules that are shells, by the module's full name.
    """
    sys.meta_path.insert(0, ShellFinder(root, real, packages, given or {}))
