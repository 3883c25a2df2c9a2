"""Configurations from outside: their check, and the small TOML that calibration writes.

Either one table ``[fast]`` or one table ``[pipeline]`` with its stages as ``[pipeline.groups]`` and ``[pipeline.replicas]``; a
key that is left out has the default of :mod:`eplb_gap.heuristics.config`.
"""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from eplb_gap.heuristics.config import Config, Effort, FastConfig, PipelineConfig, Stage
from eplb_gap.problem.atomic import write_atomically
from eplb_gap.problem.errors import InputError

MAX_BYTES = 1 << 16
TABLES: dict[str, type[Config]] = {"fast": FastConfig, "pipeline": PipelineConfig}
ONLY_FOR = {"candidates": ("swap_rule", "candidates"), "epsilon": ("packer", "epsilon_lpt"), "penalty": ("packer", "penalty_lpt")}
"""Keys of a stage that one rule alone looks at."""


def read(path: str | os.PathLike[str]) -> Config:
    """Read a configuration.

    Raises
    ------
    InputError
        If the file does not exist, is no TOML, or a key, its type or its value is not one that is allowed.
    """
    document = _document(Path(path))
    if len(document) != 1 or not document.keys() <= TABLES.keys():
        raise InputError(f"{path}: the tables are {_listed(document) or 'none'}; exactly one of [fast] and [pipeline] is needed")
    [(name, table)] = document.items()
    config: Config = _built(TABLES[name], table, name, path)
    try:
        check(config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return config


def write(path: str | os.PathLike[str], config: Config, comment: str = "") -> None:
    """Write a configuration that :func:`read` gives back; every line of the comment goes above it."""
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    name = next(name for name, kind in TABLES.items() if isinstance(config, kind))
    lines += _table(name, config)
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def check(config: Config) -> None:
    """Refuse names that no rule has and numbers out of range.

    Raises
    ------
    InputError
        Naming the key, what was found and what is allowed.
    """
    if isinstance(config, FastConfig):
        _check_name("fast.effort", config.effort, get_args(Effort))
        if config.tolerance is not None:
            _check_least("fast.tolerance", config.tolerance, 0)
        return
    # These import torch, which a setting of the planner does not need.
    from eplb_gap.heuristics.programs.packing import PACKERS
    from eplb_gap.heuristics.programs.replication import REPLICATORS
    from eplb_gap.heuristics.programs.swaps import RULES

    _check_name("pipeline.replication", config.replication, REPLICATORS)
    _check_name("pipeline.dtype", config.dtype, ("float32", "float64"))
    _check_least("pipeline.fix_ups", config.fix_ups, 0)
    for name, stage in (("pipeline.groups", config.groups), ("pipeline.replicas", config.replicas)):
        _check_name(f"{name}.packer", stage.packer, PACKERS)
        if stage.swap_rule is not None:
            _check_name(f"{name}.swap_rule", stage.swap_rule, RULES)
        _check_least(f"{name}.swap_steps", stage.swap_steps, 0)
        if (stage.swap_rule is None) != (stage.swap_steps == 0):
            raise InputError(
                f"{name}.swap_rule is {stage.swap_rule!r} with swap_steps = {stage.swap_steps}; both or none is needed"
            )
        _check_least(f"{name}.candidates", stage.candidates, 1)
        _check_least(f"{name}.epsilon", stage.epsilon, 0)
        _check_least(f"{name}.penalty", stage.penalty, 0)
        for field in fields(Stage):
            chooser, rule = ONLY_FOR.get(field.name, (field.name, None))
            found = getattr(stage, field.name)
            if rule is not None and found != field.default and getattr(stage, chooser) != rule:
                raise InputError(f"{name}.{field.name} is {found}; it is for {chooser} = {rule!r} only")


def _check_name(key: str, found: Any, allowed: Iterable[str]) -> None:
    names = list(allowed)
    if found not in names:
        raise InputError(f"{key} is {found!r}; one of {', '.join(names)} is needed")


def _check_least(key: str, found: Any, least: int) -> None:
    if not isinstance(found, (int, float)) or not (math.isfinite(found) and found >= least):
        raise InputError(f"{key} is {found!r}; a finite number of at least {least} is needed")


def _document(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"config file {path} does not exist") from None
    except OSError as error:
        raise InputError(f"config file {path} cannot be read ({error.strerror})") from None
    if len(raw) > MAX_BYTES:
        raise InputError(f"config file {path} is longer than {MAX_BYTES} bytes; a configuration is a few lines")
    try:
        return tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:  # undecodable bytes, no TOML, or integers beyond Python's own limit
        raise InputError(f"config file {path} is no TOML ({error})") from None


def _built(kind: type[Any], table: Any, name: str, path: str | os.PathLike[str]) -> Any:
    """Make a configuration of a table whose keys and types are checked."""
    if not isinstance(table, dict):
        raise InputError(f"{path}: {name} is {_shown(table)}; a table is needed")
    known = {field.name: field for field in fields(kind)}
    values: dict[str, Any] = {}
    for key, found in table.items():
        where = f"{name}.{key}"
        if key not in known:
            raise InputError(f"{path}: {where} is not a key; the keys are {', '.join(known)}")
        default = known[key].default
        if isinstance(default, Stage):
            values[key] = _built(Stage, found, where, path)
        else:
            values[key] = _value(default, found, where, path)
    return kind(**values)


def _value(default: Any, found: Any, where: str, path: str | os.PathLike[str]) -> Any:
    """Return a value of the type that the default has; a key without default is a number in one case, a name in the other."""
    if default is None:
        default = 0.0 if where == "fast.tolerance" else ""
    words = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}[type(default)]
    allowed = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(found, allowed) or (isinstance(found, bool) and not isinstance(default, bool)):
        raise InputError(f"{path}: {where} is {_shown(found)}; {words} is needed")
    if isinstance(found, int) and not -(1 << 63) <= found < 1 << 63:
        raise InputError(f"{path}: {where} is an integer of {found.bit_length()} bits; at most 63 are allowed")
    return float(found) if isinstance(default, float) else found


def _table(name: str, config: Config | Stage) -> list[str]:
    """Return the lines of a table, then its sub-tables; keys without a value and those that no rule looks at are left out."""
    lines, below = [f"[{name}]"], []
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Stage):
            below += ["", *_table(f"{name}.{field.name}", value)]
        elif value is not None and (field.name not in ONLY_FOR or value != field.default):
            lines.append(f"{field.name} = {json.dumps(value)}")
    return lines + below


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"[{name}]" for name in names)


def _shown(value: Any) -> str:
    """Return a value as a message shows it: on one line and short."""
    try:
        text = repr(value)
    except ValueError:
        return "a huge integer"
    return text if len(text) <= 60 else text[:57] + "..."
