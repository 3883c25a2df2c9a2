"""Command lines of this folder's tools."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import NoReturn, TypeVar

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """A parser that refuses in one line, without the usage, and with exit code 2.

    Parameters
    ----------
    module : str
        Of this folder, as ``python -m`` is told it.
    description : str
        First line of its docstring.
    """

    def __init__(self, module: str, description: str) -> None:
        super().__init__(prog=f"python -m eplb_gap.experiments.hosts.{module}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """End the process."""
        self.exit(2, f"{self.prog}: {message}\n")


def one_of(known: Mapping[str, T]) -> Callable[[str], T]:
    """Return what turns a word of a command line into what it names.

    Parameters
    ----------
    known : mapping
        By name.
    """

    def find(word: str) -> T:
        if word not in known:
            raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        return known[word]

    return find
