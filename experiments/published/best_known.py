"""``results/best_known.json``: written from rows and certificates, checked, and improved by certificates of anybody."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.experiments.exhibits.best_known import CLOSED_FORM, FOLDER, SCHEMA, Known, digest, known, shape, text
from eplb_gap.experiments.exhibits.exhibits import TEXTS
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.proven import NOT_KEPT, witnessed
from eplb_gap.experiments.published.manifest import write_manifest
from eplb_gap.experiments.studies.catalogue import STUDIES
from eplb_gap.problem import certificate
from eplb_gap.problem.atomic import write_atomically
from eplb_gap.problem.bounds.bounds import best_joint_bound
from eplb_gap.problem.certificate import CertificateError
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError, shown
from eplb_gap.problem.files import fields, parse_json
from eplb_gap.problem.fractions import parse
from eplb_gap.problem.instance import Instance

FILE = "best_known.json"
ENTRY = ("sha256", "name", "shape", "duplicates", "loads", "lower", "upper", "sources", "date")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
TABLES = "results/solver_tables.md"
"""The text that lists the open instances, in the project."""


@dataclass(frozen=True)
class Checked:
    """What a list of best known values says, after it was checked; every layer is in one class.

    Parameters
    ----------
    instances, layers : int
    recomputed : int
        Layers whose optimum was recomputed here: bound and map are those of a certificate.
    by_rows : int
        Layers that are optimal on the word of published rows, which keep their witnesses' kinds alone; they can be run again.
    open : list of str
        A line per instance with another layer.
    """

    instances: int
    layers: int
    recomputed: int
    by_rows: int
    open: list[str]

    def __str__(self) -> str:
        still = self.layers - self.recomputed - self.by_rows
        return (
            f"{self.instances} instances, {self.layers} layers: {self.recomputed} optimal, recomputed here; {self.by_rows} "
            f"optimal on the word of published rows; {still} open, in {len(self.open)} instances"
        )


def added(results: Path) -> dict[str, list[str]]:
    """Return sha256 and day of every certificate by its file's name: the day that the list says, today for other files."""
    path = results / FILE
    said = parse_json(path).get("certificates", {}) if path.exists() else {}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    found = {}
    for at in sorted((results / FOLDER).glob("*.json")):
        content, before = hashlib.sha256(at.read_bytes()).hexdigest(), said.get(at.name, ["", ""])
        found[at.name] = [content, str(before[1]) if before[0] == content else today]
    return found


def written(results: Path, measured: rows.Rows) -> str:
    """Return the list as rows and certificates of a folder give it."""
    files = added(results)
    return text(known(measured, results / FOLDER, {name: day for name, (_, day) in files.items()}), files)


def write(results: Path, measured: rows.Rows) -> None:
    """Write the list into a folder, atomically."""
    write_atomically(results / FILE, written(results, measured).encode())


def check(path: Path) -> Checked:
    """Check a list: structure, instances made anew, closed forms, its certificates, and that rows say the other values.

    Parameters
    ----------
    path : Path
        Certificates are looked for in the folder ``certificates`` beside it, rows there or, if there are none, in the project's
        ``results/``; rows beside it are taken at their word.

    Raises
    ------
    InputError
        If the file is missing or no such list, or something in it does not hold; the message names the instance.
    """
    document = parse_json(path)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or not isinstance(document.get("instances"), list):
        raise InputError(f"{path} is no list of schema {SCHEMA!r}")
    fields(document, str(path), ("schema", "certificates", "instances"))
    files = _certificates(document["certificates"], path.parent)
    beside = rows.read_suites(path.parent)
    days = {name: day for name, (_, day) in document["certificates"].items()}
    published = {digest(one.loads, one.deployment): one for one in known(beside or rows.read_suites(rows.RESULTS), files, days)}
    layers = recomputed = by_rows = 0
    still, met = [], set()
    for number, entry in enumerate(document["instances"]):
        name = shown(entry.get("name", number)) if isinstance(entry, dict) else number
        try:
            one = _Entry.of(fields(entry, "it", ENTRY, ("claimed",)))
            if one.raw["sha256"] in met:
                raise InputError("it is listed twice")
            met.add(one.raw["sha256"])
            one.check(files, published)
        except (CertificateError, PlacementError, InputError) as error:
            raise InputError(f"instance {name}: {error}") from None
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise InputError(f"instance {name}: lacks or misspells a field ({error!r})") from None
        closed = [low == up for low, up in zip(one.lower, one.upper, strict=True)]
        here = sum(equal and own for equal, own in zip(closed, one.recomputed, strict=True))
        layers, recomputed, by_rows = layers + len(closed), recomputed + here, by_rows + sum(closed) - here
        if not all(closed):
            said = f"{sum(closed)} of {len(closed)} layers optimal, worst gap {100 * one.gap:.4f} %"
            still.append(f"{one.raw['name']}: {said}")
    missing = [one.name for key, one in published.items() if key not in met] if beside else []
    if missing:
        raise InputError(f"{path} lacks {len(missing)} published instances, the first {missing[0]}")
    if not met:
        raise InputError(f"{path} has no instance")
    return Checked(len(met), layers, recomputed, by_rows, still)


def _certificates(said: Any, folder: Path) -> Path:
    """Return the folder of certificates, all of which are the files that a list says."""
    if not isinstance(said, dict):
        raise InputError(f"certificates is {shown(said)}; an object of file names is needed")
    there = {at.name: hashlib.sha256(at.read_bytes()).hexdigest() for at in sorted((folder / FOLDER).glob("*.json"))}
    for name, entry in said.items():
        if not isinstance(entry, list) or len(entry) != 2 or name not in there or entry[0] != there[name]:
            raise InputError(f"certificates names {shown(name)}; no file of that name and sha256 is in {FOLDER}/")
        _day(entry[1])
    for name in there.keys() - said.keys():
        raise InputError(f"certificates does not name {name}, which is in {FOLDER}/")
    return folder / FOLDER


def _day(said: Any) -> None:
    try:
        if isinstance(said, str) and _DAY.fullmatch(said) and datetime.date.fromisoformat(said):
            return
    except ValueError:
        pass
    raise InputError(f"date is {shown(said)}; a day like 2026-11-28 is needed")


@dataclass(frozen=True)
class _Entry:
    """One instance of a list, read."""

    raw: dict[str, Any]
    lower: list[Fraction]
    upper: list[Fraction]
    lower_from: list[tuple[str, str]]
    upper_from: list[tuple[str, str]]
    claimed: dict[int, Fraction]

    @classmethod
    def of(cls, raw: dict[str, Any]) -> _Entry:
        sides = []
        for side in ("lower", "upper"):
            values = [parse(value, side) for value in raw[side]["values"]]
            by = raw[side]["by"]
            numbers = [by] * len(values) if isinstance(by, int) else by
            sources = [(str(raw["sources"][number][0]), str(raw["sources"][number][1])) for number in numbers]
            if len(sources) != len(values):
                raise InputError(f"{side} has {len(values)} values from {len(sources)} sources")
            sides.append((values, sources))
        (lower, lower_from), (upper, upper_from) = sides
        if len(lower) != len(upper) or not lower:
            raise InputError(f"there are {len(lower)} bounds and {len(upper)} makespans")
        claimed = {int(layer): parse(said[0], "a claim") for layer, said in raw.get("claimed", {}).items()}
        return cls(raw, lower, upper, lower_from, upper_from, claimed)

    @property
    def recomputed(self) -> list[bool]:
        """By layer, whether bound and map are recomputed when the list is checked."""
        return [
            low[0].startswith(f"{FOLDER}/") and up[0].startswith(f"{FOLDER}/")
            for low, up in zip(self.lower_from, self.upper_from, strict=True)
        ]

    def check(self, certificates: Path, published: dict[str, Known]) -> None:
        """Raise an error unless everything holds that can be looked at without running a row again."""
        _day(self.raw["date"])
        for layer, (low, up, (_, rests)) in enumerate(zip(self.lower, self.upper, self.lower_from, strict=True)):
            if low > up:
                raise InputError(f"layer {layer}: lower {low} is above upper {up}")
            if not witnessed(rests):
                raise InputError(f"layer {layer}: lower rests on a claim, {rests}; it belongs to the claims")
        for layer, value in self.claimed.items():
            if not self.lower[layer] < value <= self.upper[layer]:
                raise InputError(f"layer {layer}: the claim {value} is not between lower and upper")
        arguments = dict(self.raw["loads"])
        study = STUDIES[arguments.pop("study")]
        if study.instance is None:
            raise InputError("its study makes no instances")
        window = arguments.get("window", 0)
        loads, deployment = study.instance(**arguments)
        loads = loads.reshape(-1, *loads.shape[-2:])
        loads = loads[window if len(loads) > 1 else 0]
        if self.raw["sha256"] != digest(loads, deployment):
            raise InputError(f"sha256 is {self.raw['sha256']}, made anew it is {digest(loads, deployment)}")
        if (self.raw["shape"], self.raw["duplicates"]) != (shape(deployment), deployment.duplicates):
            raise InputError(f"shape is {self.raw['shape']}, made anew it is {shape(deployment)}, {deployment.duplicates}")
        if len(loads) != len(self.lower):
            raise InputError(f"there are {len(self.lower)} bounds for {len(loads)} layers")
        for layer, (total, up) in enumerate(zip(loads.sum(axis=1).tolist(), self.upper, strict=True)):
            if up * deployment.live.num_gpus < total:
                raise InputError(f"layer {layer}: upper {up} is below the mean load")
        self._check_closed_forms(loads, deployment)
        one = published.get(self.raw["sha256"])
        if one is None or self.raw["name"] != one.name:
            raise InputError("it is no published instance, or has another name there")
        self._check_sources(one, certificates)
        self._check_whole(one)

    def _check_whole(self, one: Known) -> None:
        """Refuse an entry that is not, to the letter, what rows and certificates give: no value is free of a source."""
        given = one.entry()
        for name in sorted({*given, *self.raw}):
            said, right = self.raw.get(name), given.get(name)
            if json.dumps(said, sort_keys=True) != json.dumps(right, sort_keys=True):
                raise InputError(f"{name} is {shown(said)}; rows and certificates give {shown(right)}")

    def _check_closed_forms(self, loads: np.ndarray, deployment: Deployment) -> None:
        for layer, (low, (source, _)) in enumerate(zip(self.lower, self.lower_from, strict=True)):
            if source == CLOSED_FORM:
                proven = best_joint_bound(Instance.of_layer(loads[layer], deployment)).value
                if low > proven:
                    raise InputError(f"layer {layer}: lower is {low}, closed forms prove {proven}")

    def _check_sources(self, one: Known, certificates: Path) -> None:
        """Refuse values that the row or the certificate they are said to be from does not give; certificates were judged."""
        for said, values, sides in ((self.lower, self.lower_from, one.lowers), (self.upper, self.upper_from, one.uppers)):
            for layer, (value, (source, rests)) in enumerate(zip(said, values, strict=True)):
                if source == CLOSED_FORM and values is self.lower_from:
                    continue
                given = [each for each in sides[layer] if each.source == source]
                if source.startswith(f"{FOLDER}/"):
                    at = certificates.parent / source
                    if at.parent != certificates or not at.is_file():
                        raise InputError(f"{shown(source)} is no file in {FOLDER}/")
                    if not given:
                        raise InputError(f"{source} is of another instance")
                    if value != given[0].value:
                        raise InputError(f"layer {layer}: {value} is said to be from {source}, which proves {given[0].value}")
                elif (value, rests) not in {(each.value, each.rests) for each in given}:
                    raise InputError(f"layer {layer}: {value} by {shown(rests)} is what no published row {shown(source)} says")

    @property
    def gap(self) -> float:
        """The largest gap of a layer."""
        return max((float(up / low - 1) for low, up in zip(self.lower, self.upper, strict=True) if low), default=0.0)


def add(path: Path, results: Path, measured: rows.Rows) -> str:
    """Copy a certificate that improves an instance into a folder's certificates; return a line that says what it improves.

    Raises
    ------
    InputError, PlacementError, CertificateError
        If the certificate does not hold, rests on a claim, is of no published instance or improves none.
    """
    read = certificate.read(path)
    verdict = certificate.judge(read)
    if verdict.claims:
        raise InputError(f"{path} rests on a claim, {verdict.claims[0]}; only what can be recomputed is added")
    key = digest(read.loads, read.deployment)
    found = {digest(one.loads, one.deployment): one for one in known(measured, results / FOLDER, {})}
    if key not in found:
        raise InputError(f"{path} is of no published instance: none has the sha256 {key}")
    one = found[key]
    better = [
        layer
        for layer in range(len(verdict.upper))
        if verdict.upper[layer] < one.upper[layer].value or _proves_more(one, layer, verdict.lower[layer])
    ]
    if not better:
        raise InputError(f"{path} improves nothing that is known of {one.name}")
    content = path.read_bytes()
    taken = {at.name for at in (results / FOLDER).glob("*.json")}
    name = next(name for number in range(len(taken) + 1) if (name := f"added-{key[:16]}-{number}.json") not in taken)
    write_atomically(results / FOLDER / name, content)
    return f"{FOLDER}/{name} improves {one.name}, layers {', '.join(map(str, better))}"


def _proves_more(one: Known, layer: int, lower: Fraction) -> bool:
    return lower > one.lower[layer].value or (lower == one.lower[layer].value and one.lower[layer].rests == NOT_KEPT)


def refresh(results: Path, measured: rows.Rows) -> None:
    """Write the list, the tables that name what is open, and the manifest."""
    write(results, measured)
    drawn = TEXTS[TABLES]
    write_atomically(results.parent / TABLES, drawn.render(measured.of(drawn.suites)).encode())
    write_manifest(results)


def main(arguments: Sequence[str] | None = None) -> int:
    """Add certificates, or write the list anew; return 1 if a certificate was refused."""
    parser = argparse.ArgumentParser(
        prog="python -m eplb_gap.experiments.published.best_known", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--add", nargs="+", type=Path, default=[], metavar="CERTIFICATE", help="certificates that improve entries"
    )
    given = parser.parse_args(arguments)
    measured, refused = rows.read_suites(rows.RESULTS), 0
    for path in given.add:
        try:
            print(add(path, rows.RESULTS, measured))
        except (InputError, PlacementError, CertificateError) as error:
            print(f"refused: {error}", file=sys.stderr)
            refused += 1
    refresh(rows.RESULTS, measured)
    return int(refused > 0)


if __name__ == "__main__":
    sys.exit(main())
