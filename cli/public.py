"""``public-loads``: the public counts and routing that rows were measured on, for who has their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from eplb_gap.cli.options import log, out
from eplb_gap.problem import InputError

HOW = (
    "Clone the two repositories into one folder (git clone https://github.com/REPOSITORY; git checkout REVISION), then add "
    "--from THAT_FOLDER: of GPT-OSS 523 of the 703 requests are read, the ones that rows were measured on."
)


def public_loads(
    folder: Annotated[Path, typer.Argument(help="Folder that EPLB_GAP_PUBLIC_LOADS is to name.")],
    originals: Annotated[
        Path | None, typer.Option("--from", help="Your copy of the original files: checked, converted, written to FOLDER.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say where public loads come from and whether FOLDER holds them; any other content is refused, and ends with exit code 2."""
    from rich.table import Column, Table

    from eplb_gap.experiments.loads.public_counts import VARIABLE
    from eplb_gap.experiments.loads.public_sources import REFUSED, SOURCES, THERE, convert

    if originals is not None and not originals.is_dir():
        raise InputError(f"--from is {originals}, which is no folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"FOLDER is {folder}, which is no folder")
    with log.status("reading the originals"):
        written = [] if originals is None else convert(originals, folder)
    states = [source.state(folder) for source in SOURCES]
    if as_json:
        found = [source.as_dict() | {"state": state} for source, state in zip(SOURCES, states, strict=True)]
        print(json.dumps({"folder": str(folder), "written": list(map(str, written)), "sources": found}))
    else:
        table = Table("model", Column("array", overflow="fold"), "shape", "sha256", "state")
        for source, state in zip(SOURCES, states, strict=True):
            what = f"{Path(source.file).name}: {source.key}"
            table.add_row(source.model, what, "x".join(map(str, source.shape)), source.sha256[:16], state.partition(":")[0])
        out.print(table)
        for path in written:
            out.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)
        told = [f"{s.model}: {s.repository} at {s.revision}, {s.original} ({s.licence})" for s in SOURCES]
        if set(states) == {THERE}:
            told.append(f"{VARIABLE}={folder} eplb-gap reproduce --all measures on them.")
        else:
            told.append(HOW)
        for line in dict.fromkeys(told):
            out.print(line, markup=False, highlight=False, soft_wrap=True)
    refused = [state.removeprefix(REFUSED) for state in states if state.startswith(REFUSED)]
    if refused:
        raise InputError(refused[0])
