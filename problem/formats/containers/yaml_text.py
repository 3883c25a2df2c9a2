"""YAML from an untrusted file, read as what it visibly says: mappings, lists, strings and decimal integers, nothing else.

YAML's own rules turn ``017`` into 15, ``1:30`` into 90 and ten lines of aliases into gigabytes; none of that happens here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eplb_gap.problem import files
from eplb_gap.problem.errors import InputError

MAX_DEPTH = 16
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


def parse_yaml(path: Path, limit: int) -> Any:
    """Return a YAML document of at most ``limit`` bytes; scalars that are no plain decimal integers stay strings.

    Raises
    ------
    InputError
        If the file is too large or no YAML, or has an anchor, an alias, a tag, a key twice, a key that is a collection, more
        than one document, or collections in one another beyond depth 16.
    """
    import yaml

    text = files.read_text(path, limit)
    try:
        document = _document(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
        raise InputError(f"file {path} is no YAML ({reason}{f', line {mark.line + 1}' if mark else ''})") from None
    except (ValueError, OverflowError) as error:  # the latter of an escape beyond Unicode
        raise InputError(f"file {path} is no YAML that is read here ({error})") from None
    return document


def _document(events: Iterator[Any]) -> Any:
    next(events)  # the start of the stream
    start = next(events)
    if _kind(start) != "DocumentStartEvent":
        raise ValueError("there is no document")
    value = _value(next(events), events, 0)
    next(events)  # the end of the document
    extra = next(events)
    if _kind(extra) != "StreamEndEvent":
        raise ValueError(f"line {extra.start_mark.line + 1}: a second document begins")
    return value


def _kind(event: Any) -> str:
    return type(event).__name__


def _value(event: Any, events: Iterator[Any], depth: int) -> Any:
    kind, line = _kind(event), event.start_mark.line + 1
    if kind == "AliasEvent" or event.anchor is not None:
        raise ValueError(f"line {line}: anchors and aliases are not read")
    if event.tag is not None:
        raise ValueError(f"line {line}: tags are not read")
    if kind == "ScalarEvent":
        return int(event.value) if event.implicit[0] and INTEGER.fullmatch(event.value) else str(event.value)
    if depth == MAX_DEPTH:
        raise ValueError(f"line {line}: nested beyond depth {MAX_DEPTH}")
    return _mapping(events, depth + 1) if kind == "MappingStartEvent" else _sequence(events, depth + 1)


def _sequence(events: Iterator[Any], depth: int) -> list[Any]:
    found = []
    while _kind(event := next(events)) != "SequenceEndEvent":
        found.append(_value(event, events, depth))
    return found


def _mapping(events: Iterator[Any], depth: int) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    while _kind(event := next(events)) != "MappingEndEvent":
        key = _value(event, events, depth)
        if not isinstance(key, int | str):
            raise ValueError(f"line {event.start_mark.line + 1}: a collection as a key")
        if key in found:
            raise ValueError(f"line {event.start_mark.line + 1}: key {key!r:.40} comes twice")
        found[key] = _value(next(events), events, depth)
    return found
