"""Check that ``results/`` is what was measured: ``make check-results``; one line per problem, exit code 1 if there is one."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from rich.console import Console

from eplb_gap.experiments.exhibits.exhibits import BLOCKS, FIGURES, TEXTS, Figure, Text
from eplb_gap.experiments.loads.traces import gap_cases
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.published import best_known, blocks, certificates, described, rerun, row_proofs
from eplb_gap.experiments.published.manifest import FIGURE_FOLDER, MANIFEST, ROW_DIGESTS, manifest, name, row_digests
from eplb_gap.experiments.studies import schema
from eplb_gap.problem import certificate

MOST_BYTES = 50_000_000
SAMPLE = 12


@dataclass(frozen=True)
class Published:
    """What is checked.

    Parameters
    ----------
    results : Path
        The README and the figures are beside it.
    lines : dict
        By file name, what is on every line: a row, or None where a line holds none.
    """

    results: Path
    lines: dict[str, list[Row | None]]

    @classmethod
    def read(cls, results: Path) -> Published:
        """Read every row; lines that hold none do not stop it."""
        return cls(results, {p.name: [_row(line) for line in _lines(p)] for p in sorted(results.glob("*.ndjson"))})

    @cached_property
    def rows(self) -> Rows:
        """All rows."""
        return Rows(row for lines in self.lines.values() for row in lines if row is not None)

    @cached_property
    def sound(self) -> Rows:
        """The rows that have all their fields."""
        return Rows(row for row in self.rows if not schema.problems(row))


def _lines(path: Path) -> list[bytes]:
    content = path.read_bytes()
    return content.removesuffix(b"\n").split(b"\n") if content else []


def _row(line: bytes) -> Row | None:
    try:
        return Row.parse(line)
    except ValueError:
        return None


def check_size(published: Published) -> list[str]:
    """All files together are under 50 MB."""
    size = sum(path.stat().st_size for path in published.results.rglob("*") if path.is_file())
    return [f"results/ has {size} bytes; at most {MOST_BYTES} are allowed"] if size >= MOST_BYTES else []


def check_schema(published: Published) -> list[str]:
    """Every line is one row, in the file of its suite, with the fields of its kind; no key is there twice."""
    found = []
    for file, lines in published.lines.items():
        found += [f"{file}, line {number}: no result row" for number, row in enumerate(lines, start=1) if row is None]
        found += [f"{file}: holds {name(row)}" for row in lines if row and f"{row['suite']}.ndjson" != file]
    counts = Counter(map(name, published.rows))
    found += [f"{row}: {count} rows of this key" for row, count in counts.items() if count > 1]
    return found + [f"{name(row)}: {text}" for row in published.rows for text in schema.problems(row)]


def check_rows(published: Published) -> list[str]:
    """Every row has the digest that ROWS.sha256 lists, and no row is missing or new."""
    listed = {}
    for line in (published.results / ROW_DIGESTS).read_text().splitlines():
        digest, _, row = line.partition("  ")
        listed[row] = digest
    return _differences(listed, row_digests(published.rows), "row")


def check_files(published: Published) -> list[str]:
    """Every file, suite, figure, table and number of the paper is the one that MANIFEST.json lists."""
    listed, found = json.loads((published.results / MANIFEST).read_text()), manifest(published.results, published.rows)
    kinds = {"files": "file", "suites": "suite", "figures": "figure", "tables": "table", "numbers": "number"}
    return [line for part, kind in kinds.items() for line in _differences(listed.get(part, {}), found[part], kind)]


def _differences(listed: dict[str, Any], found: dict[str, Any], kind: str) -> list[str]:
    lines = [f"{kind} {item}: missing" for item in listed.keys() - found.keys()]
    lines += [f"{kind} {item}: not listed" for item in found.keys() - listed.keys()]
    lines += [f"{kind} {item}: changed" for item in listed.keys() & found.keys() if listed[item] != found[item]]
    return sorted(lines)


def check_suites(published: Published) -> list[str]:
    """Every suite that a figure or a table draws from has rows."""
    present = {row["suite"] for row in published.rows}
    exhibits: dict[str, Text | Figure] = {**TEXTS, **{f"figure {figure.name}": figure for figure in FIGURES}}
    exhibits |= {f"block {title}": text for title, text in BLOCKS.items()}
    return [
        f"{name}: {exhibit.script} draws from suite {suite}, which has no rows"
        for name, exhibit in exhibits.items()
        for suite in exhibit.suites
        if suite not in present
    ]


def check_tables(published: Published) -> list[str]:
    """Every table, drawn from the rows of its own suites alone, is the published one to the byte."""
    root, found = published.results.parent, []
    for path, text in TEXTS.items():
        found += _compared(path, partial(text.render, published.rows.of(text.suites)), _text(root / path))
    pages = blocks.pages(root)
    for title, path in blocks.places(pages, BLOCKS).items():
        draw = partial(BLOCKS[title].render, published.rows.of(BLOCKS[title].suites))
        found += _compared(f"{path}, {title}", draw, blocks.read(pages.get(path, ""), title))
    said = _text(published.results / "README.md")
    for title, drawn in described.blocks().items():
        found += _compared(f"results/README.md, {title}", partial(str, drawn), blocks.read(said, title))
    return found


def check_figures(published: Published) -> list[str]:
    """Every figure, drawn from the rows of its own suites alone, is the published one to the byte."""
    folder = published.results.parent / FIGURE_FOLDER
    with tempfile.TemporaryDirectory() as fresh:
        drawn = (_figure_problems(f, published.rows.of(f.suites), folder, Path(fresh)) for f in FIGURES)
        return [line for lines in drawn for line in lines]


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _compared(what: str, draw: Callable[[], str], said: str) -> list[str]:
    try:
        drawn = draw()
    except Exception as error:  # rows that somebody changed can fail in any way: that they do is the finding
        return [f"{what}: cannot be drawn from the rows ({error!r})"]
    if drawn == said:
        return []
    lines = zip([*drawn.splitlines(), ""], [*said.splitlines(), ""], strict=False)
    number, (new, old) = next(((n, pair) for n, pair in enumerate(lines, start=1) if pair[0] != pair[1]), (1, ("", "")))
    return [f"{what}, line {number}: is {_around(old, new)!r}, the rows give {_around(new, old)!r}"]


def _around(line: str, other: str) -> str:
    """Return the part of a line where it begins to differ from another."""
    first = next((at for at, (a, b) in enumerate(zip(line, other, strict=False)) if a != b), min(len(line), len(other)))
    return line[max(0, first - 20) : first + 40]


def _figure_problems(figure: Figure, measured: Rows, published: Path, folder: Path) -> list[str]:
    try:
        drawn = figure.draw(measured, folder)
    except Exception as error:  # as above
        return [f"{figure.script}: cannot be drawn from the rows ({error!r})"]
    found = []
    for path in drawn:
        said = published / path.name
        if not said.exists() or said.read_bytes() != path.read_bytes():
            found.append(f"{FIGURE_FOLDER}/{path.name}: not what {figure.script} draws from the rows")
    return found


def check_proofs(published: Published) -> list[str]:
    """Gaps, bounds, kept maps and hashes in the rows agree with each other and with the instances."""
    return row_proofs.problems(published.sound)


def check_certificates(published: Published) -> list[str]:
    """Every instance of the gap table and every kind of witness has a certificate that holds, and no row contradicts one."""
    folder = published.results / certificates.FOLDER
    found = certificates.problems(folder)
    if found:
        return found
    for case in gap_cases().values():
        verdict = certificate.check(folder / f"{case.name}.json")
        for row in published.sound.where(suite="gap", instance=case.name):
            above = (up < low for up, low in zip(row.upper, verdict.lower, strict=False))
            below = (low > up for low, up in zip(row.lower, verdict.upper, strict=False))
            if any(above) or any(below):
                found.append(f"{certificates.FOLDER}/{case.name}.json: contradicts {name(row)}")
    return found


def check_best_known(published: Published) -> list[str]:
    """The best known values are those that rows and certificates give, and hold."""
    path = published.results / best_known.FILE
    found = _compared(best_known.FILE, partial(best_known.written, published.results, published.rows), _text(path))
    best_known.check(path)
    return found


CHECKS = {
    "size": check_size,
    "schema": check_schema,
    "rows": check_rows,
    "files": check_files,
    "suites of figures and tables": check_suites,
    "tables drawn again": check_tables,
    "figures drawn again": check_figures,
    "proofs in rows": check_proofs,
    "certificates": check_certificates,
    "best known values": check_best_known,
}
"""Checks that run nothing anew, in their order."""


def check(results: Path, sample: int, seed: int, workers: int, console: Console) -> Iterable[tuple[str, float, list[str]]]:
    """Yield the name of every check, its seconds and its problems, as it ends."""
    published = Published.read(results)
    again = f"rerun of {sample} rows, seed {seed}"

    def run(published: Published) -> list[str]:
        if without := rerun.left_out(published.sound):
            console.print(f"not run again: {without}", soft_wrap=True)
        return rerun.rerun(rerun.draw(published.sound, sample, seed), workers, console)

    for title, function in {**CHECKS, **({again: run} if sample else {})}.items():
        start = time.perf_counter()
        try:
            problems = function(published)
        except (OSError, ValueError) as error:
            problems = [f"cannot be checked: {error}"]
        yield title, time.perf_counter() - start, problems


def main(arguments: list[str] | None = None) -> int:
    """Check, print every check with its result, and return 1 if there is a problem."""
    parser = argparse.ArgumentParser(
        prog="python -m eplb_gap.experiments.published.check_results", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder; README.md and paper/ are beside it")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="rows to run again")
    parser.add_argument("--seed", type=int, default=None, help="of the sample; another one every time unless given")
    parser.add_argument("--workers", type=int, default=2, help="processes of the sample")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    given = parser.parse_args(arguments)
    if given.sample < 0 or given.workers < 1:
        parser.error("--sample needs a number of at least 0, --workers of at least 1")
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    outcome, failed = {}, 0
    for title, seconds, problems in check(given.results, given.sample, seed, given.workers, Console(stderr=True)):
        failed += len(problems)
        outcome[title] = problems
        if not given.json:
            print(f"{title:36} {seconds:6.1f} s  {f'{len(problems)} problem(s)' if problems else 'ok'}", flush=True)
            for line in problems:
                print(f"  {line}", flush=True)
    if given.json:
        print(json.dumps({"seed": seed, "sample": given.sample, "ok": not failed, "problems": outcome}, indent=1))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
