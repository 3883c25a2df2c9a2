"""``record``: loads of a small model trained for this purpose."""

from __future__ import annotations

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from eplb_gap.cli.options import JsonFlag, log, out
from eplb_gap.cli.outputs import Force, Output, check_outputs
from eplb_gap.cli.outputs import trace as trace_at
from eplb_gap.problem import InputError


class Traffic(StrEnum):
    """What is served."""

    SHIFTING = "shifting"
    RHYTHM = "rhythm"


ROUTING_EVERY = 30
"""Steps between those whose tokens are kept: 40 of the usual traffic, 5 MB."""
TRAFFIC = (
    "shifting: five long phases, those of the shipped trace; rhythm: many short phases of recurring mixes of domains, shares and "
    "batch sizes that follow a day of 400 steps."
)


def record(
    corpus: Annotated[Path, typer.Option(help="Folder with one sub-folder of UTF-8 text files per domain.")],
    trace: Annotated[Path | None, typer.Option("--out", help="Per-step trace to write (.npz).")] = None,
    routing: Annotated[
        Path | None,
        typer.Option("--routing", help="Trace of the experts of every token to write (.npz), of every 30th step (tiny: every)."),
    ] = None,
    checkpoint: Annotated[Path, typer.Option(help="Model file; training goes on from it.")] = Path("runs/moe.pt"),
    tiny: Annotated[bool, typer.Option("--tiny", help="A seconds-long recording over any domains.")] = False,
    single_domains: Annotated[
        bool, typer.Option("--single-domains", help="Serve one domain after the other, 100 steps each.")
    ] = False,
    traffic: Annotated[Traffic, typer.Option(help=TRAFFIC)] = Traffic.SHIFTING,
    length: Annotated[
        int | None,
        typer.Option("--steps", help="Steps to record, full windows of 100 (tiny: 4); phases repeat, a rhythm goes on."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="For another model than that of the shipped trace.", show_default=False),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Train the small mixture-of-experts model on a folder of text, serve shifting traffic, record the expert loads."""
    import torch
    from rich.progress import Progress

    from eplb_gap.experiments.loads.moe_trace.config import RecordConfig, single_domains_config, tiny_config
    from eplb_gap.experiments.loads.moe_trace.recorder import record as run
    from eplb_gap.experiments.loads.moe_trace.recorder import record_routing
    from eplb_gap.experiments.loads.moe_trace.rhythm import rhythm_config
    from eplb_gap.experiments.measuring import rows

    if threads < 1:
        raise InputError(f"--threads is {threads}; at least 1 is needed")
    if trace is None and routing is None:
        raise InputError("--out FILE or --routing FILE is missing; what to write is needed")
    written = []
    for option, path in (("--out", trace), ("--routing", routing)):
        if path is not None and path.suffix != ".npz":
            raise InputError(f"{option} is {path}; a name that ends in .npz is needed")
        if path is not None:
            written.append(trace_at(option, path))
    windowed = None if trace is None else trace.with_name(f"{trace.stem}-windows.npz")
    if windowed is not None:
        written.append(trace_at("--out", windowed))
    if checkpoint.is_file() and not _is_checkpoint(checkpoint):  # training would go on from it
        raise InputError(
            f"--checkpoint is {checkpoint}, which is there and is no checkpoint of eplb-gap record; another name is needed"
        )
    model = Output("--checkpoint", checkpoint, "checkpoint", lambda _: True)
    check_outputs([*written, model], force=force)
    if not corpus.is_dir():
        raise InputError(f"--corpus is {corpus}; a folder with a sub-folder of text files per domain is needed")
    torch.set_num_threads(threads)
    domains = tuple(sorted(p.name for p in corpus.iterdir() if p.is_dir()))
    if not domains:
        raise InputError(f"--corpus {corpus} has no sub-folder; one per domain is needed")
    if tiny and single_domains:
        raise InputError("--tiny and --single-domains are given; only one of the two can be recorded")
    rhythm = traffic == Traffic.RHYTHM
    if rhythm and (tiny or single_domains):
        given = "--tiny" if tiny else "--single-domains"
        raise InputError(f"--traffic rhythm and {given} are given; only one of the two can be recorded")
    config = tiny_config(domains) if tiny else single_domains_config() if single_domains else RecordConfig()
    if length is not None and (length < 1 or length % config.serve.window_steps):
        raise InputError(f"--steps is {length}; a positive multiple of {config.serve.window_steps} is needed")
    if rhythm:
        config = rhythm_config() if length is None else rhythm_config(length)
    elif length is not None:
        config = replace(config, serve=config.serve.repeated(length))
    if seed is not None:
        config = replace(config, seed=seed)
    revision = rows.environment()["revision"]
    summary: dict[str, Any] = {}
    with Progress(console=log) as bar:
        task = bar.add_task("training", total=None)

        def told(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, description=text)

        if trace is not None and windowed is not None:
            steps = run(corpus, checkpoint, config, told)
            steps.provenance["revision"] = revision
            steps.save(trace)
            windows = steps.windowed(config.serve.window_steps)
            windows.save(windowed)
            summary |= {
                "steps": str(trace),
                "windows": str(windowed),
                "shape": list(windows.loads.shape),
                "skew": {name: values.round(4).tolist() for name, values in windows.skew(config.model.groups).items()},
                "drift": windows.drift().round(4).tolist(),
                "training": steps.provenance["training"],
            }
        if routing is not None:
            tokens = record_routing(corpus, checkpoint, config, 1 if tiny else ROUTING_EVERY, told)
            tokens.provenance["revision"] = revision
            tokens.save(routing)
            summary |= {
                "routing": str(routing),
                "tokens_layers_topk": list(tokens.experts.shape),
                "training": tokens.provenance["training"],
            }
    if as_json:
        print(json.dumps(summary))
    else:
        out.print_json(data=summary)


def _is_checkpoint(path: Path) -> bool:
    from eplb_gap.problem.formats.containers.torch_arrays import load_torch

    try:
        content = load_torch(path)
    except InputError:
        return False
    return isinstance(content, dict) and {"identity", "model", "step"} <= content.keys()
