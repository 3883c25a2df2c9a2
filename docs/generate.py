"""Pages that follow from the program: the commands from their help texts, the exhibits from the catalogue of studies."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from eplb_gap.cli.main import app
from eplb_gap.experiments.exhibits.exhibits import BLOCKS, FIGURES, TEXTS
from eplb_gap.experiments.measuring.rows import ROOT
from eplb_gap.experiments.studies.jobs import JOBS


def write(folder: Path) -> None:
    """Write all pages; one that has not changed is left alone, so that only what did is built again."""
    pages = {"commands.md": commands(), "exhibits.md": exhibits()}
    pages |= {f"results/{job.text}": published((ROOT / "results" / job.text).read_text()) for job in JOBS.values()}
    for name, text in pages.items():
        page = folder / name
        page.parent.mkdir(parents=True, exist_ok=True)
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def published(text: str) -> str:
    """Return published tables as a page: files that the site does not have are named, not linked."""
    return re.sub(r"\[([^\]]+)\]\((?!http)[^)]+\.json\)", r"`\1`", text)


def commands() -> str:
    """Return the reference of the command line."""
    group: Any = typer.main.get_command(app)
    parts = ["# Commands", "From the help texts: `eplb-gap COMMAND --help` says the same."]
    above = typer.Context(group, info_name="eplb-gap")
    for name, command in group.commands.items():
        context = typer.Context(command, info_name=name, parent=above)
        said = [record for option in command.get_params(context) if (record := option.get_help_record(context))]
        rows = [("option", "what"), *((f"`{option}`".replace("|", "\\|"), _prose(text)) for option, text in said)]
        parts += [f"## {name}", _prose(command.help), _prose(command.epilog), table(rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _prose(text: str | None) -> str:
    """Return a help text on one line, with nothing in it that Markdown reads."""
    return re.sub(r"([|<\[\]*_`])", r"\\\1", " ".join((text or "").replace("\b", "").split()))


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table, its first row the head."""
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *body))


def exhibits() -> str:
    """Return which command measures what a figure, a table or a part of a page is drawn from."""
    drawn = [(f"`paper/figures/{figure.name}`", figure.suites) for figure in FIGURES]
    drawn += [(f"`{path}`", text.suites) for path, text in TEXTS.items() if not path.startswith("paper/numbers")]
    drawn += [(f"block *{title}*", text.suites) for title, text in BLOCKS.items()]
    commands_of = {suite: job.command for job in JOBS.values() for suite in job.suites}
    rows = [("exhibit", "measured by")]
    for name, suites in drawn:
        by_command: dict[str, list[str]] = {}
        for suite in suites:
            by_command.setdefault(commands_of[suite], []).append(suite.replace("_", "\\_"))
        rows.append((name, "<br>".join(f"`eplb-gap {command}`: {', '.join(named)}" for command, named in by_command.items())))
    return "# Figures and tables\n\nBehind a command stand the suites of rows that are drawn.\n\n" + table(rows) + "\n"
