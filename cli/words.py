"""The words of a command line before click sees them: none is empty, and several may stand behind ``--loads``.

A shell expands ``--loads recorder_*.pt`` to several words; click's options take a fixed number of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from eplb_gap.problem import InputError

LOADS = "--loads"
TRACE = ".npz"
RECORDED = frozenset({".csv", ".parquet", ".gz", ".zst", ".pt", ".safetensors", ".jsonl", ".txt"})
"""Suffixes of recordings that nothing which ``convert`` writes has."""
NUMBER = re.compile(r"-[0-9.].*")
"""No option begins like that, but the value of one can."""


class Command(TyperCommand):
    """A command that refuses empty words, which are variables of a shell that nothing was assigned to."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse them.

        Raises
        ------
        InputError
            Naming the option.
        """
        for before, word in zip(["", *args], args, strict=False):
            if not word or (word.startswith("--") and word.endswith("=")):
                name = word.rstrip("=") or (before if before.startswith("-") else "an argument")
                raise InputError(f"{name} is empty; a value is needed")
        return super().parse_args(ctx, args)


class LoadsCommand(Command):
    """A command whose ``--loads`` takes all words up to the next option, and can be repeated."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat ``--loads`` before each of its words, which click understands."""
        return super().parse_args(ctx, [word for group in _groups(args) for word in _repeated(group)])


class ConvertCommand(LoadsCommand):
    """``convert``: where no other word is OUT, the last one of several behind ``--loads`` is, as in ``--loads IN OUT``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put OUT last.

        Raises
        ------
        InputError
            If the last word behind ``--loads`` could as well be one of the loads: it is a recording, or called like one.
        """
        groups = _groups(args)
        asked = any(word in ctx.help_option_names for word in args)
        if groups and groups[-1][0] != "--" and not asked and not self._positional(groups):
            last = next((group for group in reversed(groups) if group[0] == LOADS), [])
            if len(last) > 2:
                target = last.pop()
                _refuse_recording(target, last[1:])
                groups.append(["--", target])
        return super().parse_args(ctx, [word for group in groups for word in group])

    def _positional(self, groups: Sequence[Sequence[str]]) -> bool:
        """Return whether a word is neither an option nor the value of one."""
        flags = {name for one in self.params if getattr(one, "is_flag", False) for name in (*one.opts, *one.secondary_opts)}
        for group in groups:
            takes = group[0].startswith("-") and group[0] not in flags and "=" not in group[0]
            if group[0] == "--" or (group[0] != LOADS and len(group) > 1 + takes) or not group[0].startswith("-"):
                return True
        return False


def _groups(args: Sequence[str]) -> list[list[str]]:
    """Return every option with the words up to the next one; words in front of all options, and ``--``, begin a group too."""
    groups: list[list[str]] = []
    for word in args:
        if groups and (groups[-1][0] == "--" or not word.startswith("-") or word == "-" or NUMBER.fullmatch(word)):
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups


def _repeated(group: Sequence[str]) -> list[str]:
    if group[0] != LOADS:
        return list(group)
    if len(group) == 1:
        raise InputError(f"{LOADS} is followed by no path; one, or several, are needed")
    return [word for path in group[1:] for word in (LOADS, path)]


def _refuse_recording(target: str, loads: Sequence[str]) -> None:
    """Refuse to take for OUT what may be one of the loads."""
    from eplb_gap.problem.formats.loads.recorded import holds_loads

    path, last = Path(target), f"{target}, the last word behind {LOADS}"
    suffix = path.suffix.lower()
    few = list(loads) if len(loads) < 3 else [loads[0], "..."]
    shown = " ".join([*loads, target] if len(loads) < 2 else [loads[0], "...", target])
    if holds_loads(path):
        if suffix == TRACE:
            raise InputError(
                f"OUT is missing, or it is {last}, which is there and holds a recording; to write over it, name it in front "
                f"or behind another option, with --force: convert {target} --force {LOADS} {' '.join(few)}"
            )
        raise InputError(
            f"OUT is missing, or it is {last}, which holds recorded loads itself; name OUT in front: convert OUT {LOADS} {shown}"
        )
    if suffix in RECORDED:
        why = "holds no loads of a known format" if os.path.exists(path) else "does not exist"
        raise InputError(
            f"OUT is missing, or {last}, is no recording: it {why}, and nothing that convert writes ends in {path.suffix}; name "
            f"OUT behind the recordings or in front: convert OUT {LOADS} {shown}"
        )
