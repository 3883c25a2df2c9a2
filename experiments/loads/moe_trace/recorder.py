"""Serve shifting traffic with the trained model and record the load of every expert, step by step."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eplb_gap.experiments.loads.moe_trace.config import Phase, RecordConfig
from eplb_gap.experiments.loads.moe_trace.corpus import Domain, TokenStreams, read_corpus
from eplb_gap.experiments.loads.moe_trace.model import LanguageModel
from eplb_gap.experiments.loads.moe_trace.training import train
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.loads import LoadTrace
from eplb_gap.problem.routing.trace import RoutingTrace

Progress = Callable[[int, int, str], None]
EXTRA = "pip install 'eplb-gap[record]'"


def record(corpus: Path, checkpoint: Path, config: RecordConfig, progress: Progress) -> LoadTrace:
    """Train on a folder of text (or load the finished checkpoint), then serve and record.

    Parameters
    ----------
    corpus : Path
        See :func:`eplb_gap.experiments.loads.moe_trace.corpus.read_corpus`.
    checkpoint : Path
        Model file; training goes on from it where it exists.
    config : RecordConfig
    progress : callable
        ``progress(done, total, text)``.

    Returns
    -------
    LoadTrace
        One window per serving step, int64 [steps, moe layers, experts]; every row sums to tokens x experts per token. Its
        provenance holds the phases and the tokens of a step, one number or, where they fluctuate, one for each step.

    Raises
    ------
    InputError
        If what the extra ``record`` installs is missing, the corpus is not usable or lacks a domain of the traffic, or the
        checkpoint belongs to another run.
    """
    streams, domains, model, summary = _trained(corpus, checkpoint, config, progress)
    loads = serve(model, streams, config, progress)
    return LoadTrace(loads, _provenance(config, domains, streams, checkpoint, summary))


def _trained(
    corpus: Path, checkpoint: Path, config: RecordConfig, progress: Progress
) -> tuple[TokenStreams, list[Domain], LanguageModel, dict[str, Any]]:
    _require_extra()
    domains = read_corpus(corpus, config.max_domain_bytes)
    names = {domain.name for domain in domains}
    wanted = {name for phase in config.serve.phases for mix in (phase.start, phase.end) for name in mix} | set(
        config.held_out_domains
    )
    if wanted - names:
        raise InputError(
            f"corpus: {corpus} lacks the domains {sorted(wanted - names)} that the traffic needs; it has {sorted(names)}"
        )
    streams = TokenStreams(domains, config.model.vocabulary, names - set(config.held_out_domains))
    model, summary = train(config, streams, checkpoint, progress)
    return streams, domains, model, summary


def record_routing(corpus: Path, checkpoint: Path, config: RecordConfig, every: int, progress: Progress) -> RoutingTrace:
    """Serve every ``every``-th step of the traffic of :func:`record`, and keep the experts of every token.

    Parameters
    ----------
    corpus, checkpoint, config, progress
        As of :func:`record`.
    every : int
        At least 1.

    Returns
    -------
    RoutingTrace
        With steps as :func:`record` numbers them; a step's tokens are its sequences, one after the other.

    Raises
    ------
    InputError
        As :func:`record`.
    """
    if every < 1:
        raise InputError(f"every is {every}; at least 1 is needed")
    streams, domains, model, summary = _trained(corpus, checkpoint, config, progress)
    kept, steps = [], []
    for step in _steps(model, streams, config, progress, every):
        kept.append(model.routing().numpy().astype(np.uint16))
        steps.append(np.full(len(kept[-1]), step))
    provenance = {**_provenance(config, domains, streams, checkpoint, summary), "routing_every": every}
    return RoutingTrace(np.concatenate(kept), config.model.experts, step=np.concatenate(steps), provenance=provenance)


def _require_extra() -> None:
    if importlib.util.find_spec("tokenizers") is None:
        raise InputError(f"recording needs tokenizers, which is not installed: {EXTRA}")
    if not hasattr(torch.nn.functional, "grouped_mm"):
        raise InputError(f"recording needs torch.nn.functional.grouped_mm, which torch {torch.__version__} has not: {EXTRA}")


def serve(model: LanguageModel, streams: TokenStreams, config: RecordConfig, progress: Progress) -> np.ndarray:
    """Run every step of the traffic with the selection bias frozen; int64 [steps, moe layers, experts]."""
    return np.stack([model.loads().numpy() for _ in _steps(model, streams, config, progress)])


def _steps(
    model: LanguageModel, streams: TokenStreams, config: RecordConfig, progress: Progress, every: int = 1
) -> Iterator[int]:
    """Run every ``every``-th step of the traffic, and yield its number behind each; what a step sees depends on no other."""
    mixes = [mix for phase in config.serve.phases for mix in _mixes(phase)]
    sequences = sequences_of_steps(config)
    model.eval()
    for step in range(0, len(mixes), every):
        generator = np.random.default_rng([config.seed, config.serve.stream, step])
        batch = streams.sample(streams.held_out, mixes[step], sequences[step], config.serve.sequence_length, generator)
        with torch.inference_mode():
            model.features(torch.from_numpy(batch))
        progress(step + 1, len(mixes), "serving")
        yield step


def sequences_of_steps(config: RecordConfig) -> list[int]:
    """Return the number of sequences in every step of the traffic."""
    usual, generator = config.serve.sequences, np.random.default_rng([config.seed, config.serve.stream])
    numbers: list[int] = []
    for phase in config.serve.phases:
        if phase.sequences is None:
            numbers += [usual] * phase.steps
            continue
        share = (np.arange(phase.steps) + 0.5) / phase.steps
        expected = (1 - share) * phase.sequences[0] + share * phase.sequences[1]
        numbers += np.clip(generator.poisson(expected), (usual + 1) // 2, usual * 3 // 2).tolist()
    return numbers


def _mixes(phase: Phase) -> list[dict[str, float]]:
    names = sorted({*phase.start, *phase.end})
    mixes = []
    for step in range(phase.steps):
        share = (step + 0.5) / phase.steps
        mixes.append({name: (1 - share) * phase.start.get(name, 0.0) + share * phase.end.get(name, 0.0) for name in names})
    return mixes


def _described(phase: Phase) -> dict[str, Any]:
    described = dataclasses.asdict(phase)
    if phase.sequences is None:
        del described["sequences"]
    return described


def _provenance(
    config: RecordConfig, domains: list[Domain], streams: TokenStreams, checkpoint: Path, summary: dict[str, Any]
) -> dict[str, Any]:
    sequences = sequences_of_steps(config)
    fluctuating = len(set(sequences)) > 1
    length = config.serve.sequence_length
    return {
        "kind": "recorded from a small model trained for this purpose",
        "window_steps": 1,
        "tokens_per_step": [length * number for number in sequences] if fluctuating else length * sequences[0],
        "phases": [_described(phase) for phase in config.serve.phases],
        "stream": config.serve.stream,
        "model": {**dataclasses.asdict(config.model), "parameters": summary["parameters"]},
        "training": {
            **dataclasses.asdict(config.train),
            **{key: summary[key] for key in ("training_loss", "held_out_loss", "unigram_loss")},
        },
        "held_out_domains": list(config.held_out_domains),
        "seed": config.seed,
        "corpus": [
            {"domain": d.name, "source": d.source, "licence": d.licence, "bytes_used": d.bytes_used, "bytes_found": d.bytes_found}
            for d in domains
        ],
        "tokenizer_sha256": streams.tokenizer_sha256,
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
