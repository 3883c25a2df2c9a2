"""Pages that follow from the program: the commands from their help texts, the exhibits from the catalogue of studies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import typer

from eplb_gap.cli.main import app
from eplb_gap.experiments.exhibits.exhibits import FIGURES, README_BLOCKS, TEXTS
from eplb_gap.experiments.measuring.rows import ROOT
from eplb_gap.experiments.studies.jobs import JOBS


def write(folder: Path) -> None:
    """Write all pages; one that has not changed is left alone, so that only what did is built again."""
    pages = {"commands.md": commands(), "exhibits.md": exhibits()}
    pages |= {f"results/{job.text}": (ROOT / "results" / job.text).read_text() for job in JOBS.values()}
    for name, text in pages.items():
        page = folder / name
        page.parent.mkdir(parents=True, exist_ok=True)
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def commands() -> str:
    """Return the reference of the command line."""
    group = typer.main.get_command(app)
    parts = ["# Commands", "From the help texts: `eplb-gap COMMAND --help` says the same."]
    with click.Context(group, info_name="eplb-gap") as above:
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            with click.Context(command, info_name=name, parent=above) as context:
                parts += [f"## {name}", _prose(command.help), _prose(command.epilog), table(_options(command, context))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _prose(text: str | None) -> str:
    return _escaped(" ".join((text or "").replace("\b", "").split()))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[").replace("*", "\\*")


def _options(command: click.Command, context: click.Context) -> Iterator[tuple[str, ...]]:
    yield "option", "takes", "what"
    for parameter in command.get_params(context):
        flag = bool(getattr(parameter, "is_flag", False))
        takes = "" if flag else parameter.make_metavar(context).replace("|", " | ").strip("[]<>.")
        default = parameter.get_default(context)
        shown = default not in (None, (), [], False, "") and not callable(default)
        said = _prose(getattr(parameter, "help", ""))
        value = getattr(default, "value", default)
        named = [*parameter.opts, *parameter.secondary_opts] if isinstance(parameter, click.Option) else [parameter.human_readable_name]
        yield " ".join(f"`{one}`" for one in named), _escaped(takes), f"{said} Default: `{value}`." if shown else said


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table, its first row the head."""
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *body))


def exhibits() -> str:
    """Return which command measures what a figure, a table or a part of the README is drawn from."""
    drawn = [(f"`paper/figures/{figure.name}`", figure.suites) for figure in FIGURES]
    drawn += [(f"`{path}`", text.suites) for path, text in TEXTS.items() if not path.startswith("paper/numbers")]
    drawn += [(f"README, {title}", text.suites) for title, text in README_BLOCKS.items()]
    jobs = {suite: f"`eplb-gap {job.command}`" for job in JOBS.values() for suite in job.suites}
    rows = [("exhibit", "rows", "measured by")]
    for name, suites in drawn:
        whole = list(dict.fromkeys(jobs[suite] for suite in suites))
        rows.append((name, ", ".join(suites), "<br>".join(whole)))
    return "# Figures and tables\n\n" + table(rows) + "\n"
