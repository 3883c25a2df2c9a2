"""Controllers from outside: a word on the command line, or the tables of a TOML file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from eplb_gap.heuristics.control.catalogue import KINDS
from eplb_gap.heuristics.control.controller import Controller
from eplb_gap.heuristics.control.presets import PRESETS
from eplb_gap.problem import files
from eplb_gap.problem.atomic import write_atomically
from eplb_gap.problem.errors import InputError

MAX_BYTES = 1 << 16
TYPES: dict[str, type] = {
    **dict.fromkeys(("interval", "window", "lag", "layers"), int),
    **dict.fromkeys(("moves", "burst", "below", "gain", "decay"), float),
    **dict.fromkeys(("kind", "name", "method"), str),
}
"""Type of every setting."""


def read_controllers(path: str | Path) -> list[Controller]:
    """Read controllers: tables ``[[controller]]`` with the keys of :class:`Controller`.

    Raises
    ------
    InputError
        If the file cannot be read, is no TOML, or a key, its type or its value is not one that is allowed.
    """
    try:
        document = tomllib.loads(files.read_text(Path(path), MAX_BYTES))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no TOML ({error})") from None
    tables = document.get("controller")
    if set(document) != {"controller"} or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"{path}: tables [[controller]] alone are needed")
    return [_made(table, f"{path}: controller {number}") for number, table in enumerate(tables, 1)]


def parse_controller(text: str) -> Controller:
    """Return the controller that a word says: a preset, or a kind and settings as in ``budgeted:interval=10,moves=0.02``.

    Raises
    ------
    InputError
        If it is neither, or a setting is not one that is allowed.

    Examples
    --------
    >>> from eplb_gap.heuristics.control.controllers_file import parse_controller
    >>> parse_controller("budgeted:interval=10,moves=0.02").label
    'budgeted (interval 10, moves 0.02)'
    """
    if text in PRESETS:
        return PRESETS[text]
    kind, _, rest = text.partition(":")
    table: dict[str, Any] = {"kind": kind}
    for part in rest.split(",") if rest else []:
        key, equals, value = part.partition("=")
        if key in table:
            raise InputError(f"controller {text!r}: {key} is given twice")
        if not equals or key not in TYPES:
            allowed = ", ".join(key for key in TYPES if key != "kind")
            raise InputError(f"controller {text!r}: {part!r} is no setting; KEY=VALUE, each key once, of {allowed} is needed")
        table[key] = _number(value) if TYPES[key] is not str else value
    return _made(table, f"controller {text!r}")


def write_controllers(path: str | Path, controllers: Iterable[Controller], comment: str = "") -> None:
    """Write controllers as :func:`read_controllers` reads them; every line of the comment goes above them.

    Settings that have their default are left out, so that a file says what was chosen and nothing else.
    """
    lines = [f"# {''.join(letter for letter in line if letter.isprintable())}".rstrip() for line in comment.splitlines()]
    for controller in controllers:
        named = {"kind": controller.kind, "name": controller.name} if controller.name else {"kind": controller.kind}
        lines += [
            "[[controller]]",
            *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in (named | controller.changed()).items()),
        ]
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _made(table: dict[str, Any], where: str) -> Controller:
    known = [field.name for field in fields(Controller)]
    for key, found in table.items():
        if key not in known:
            raise InputError(f"{where}: {key} is not a key; the keys are {', '.join(known)}")
        if TYPES[key] is str and not (isinstance(found, str) and found.isprintable()):
            raise InputError(f"{where}: {key} is {found!r}; a string of printable characters is needed")
    kind = table.get("kind")
    if kind in PRESETS:
        raise InputError(f"{where}: {kind} is the name of a controller, which takes no settings; kinds are {', '.join(KINDS)}")
    if kind not in KINDS:
        raise InputError(f"{where}: kind is {kind!r}; {', '.join((*KINDS, *PRESETS))} are known")
    try:
        controller = Controller(**table)
        KINDS[controller.kind].check(controller)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return controller
