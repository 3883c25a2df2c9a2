"""Serve shifting traffic with the trained model and record the load of every expert, step by step."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from collections.abc import Callable
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

Progress = Callable[[int, int, str], None]


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
        One window per serving step, int64 [steps, moe layers, experts]; every row sums to tokens x experts per token.

    Raises
    ------
    InputError
        If the corpus is not usable, lacks a domain of the traffic, or the checkpoint belongs to another run.
    """
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
    loads = serve(model, streams, config, progress)
    return LoadTrace(loads, _provenance(config, domains, streams, checkpoint, summary))


def serve(model: LanguageModel, streams: TokenStreams, config: RecordConfig, progress: Progress) -> np.ndarray:
    """Run every step of the traffic with the selection bias frozen; int64 [steps, moe layers, experts]."""
    mixes = [mix for phase in config.serve.phases for mix in _mixes(phase)]
    loads = np.empty((len(mixes), config.model.moe_layers, config.model.experts), dtype=np.int64)
    model.eval()
    with torch.inference_mode():
        for step, mix in enumerate(mixes):
            generator = np.random.default_rng([config.seed, 3, step])
            batch = streams.sample(streams.held_out, mix, config.serve.sequences, config.serve.sequence_length, generator)
            model.features(torch.from_numpy(batch))
            loads[step] = model.loads().numpy()
            progress(step + 1, len(mixes), "serving")
    return loads


def _mixes(phase: Phase) -> list[dict[str, float]]:
    names = sorted({*phase.start, *phase.end})
    mixes = []
    for step in range(phase.steps):
        share = (step + 0.5) / phase.steps
        mixes.append({name: (1 - share) * phase.start.get(name, 0.0) + share * phase.end.get(name, 0.0) for name in names})
    return mixes


def _provenance(
    config: RecordConfig, domains: list[Domain], streams: TokenStreams, checkpoint: Path, summary: dict[str, Any]
) -> dict[str, Any]:
    return {
        "kind": "recorded from a small model trained for this purpose",
        "window_steps": 1,
        "tokens_per_step": config.serve.sequences * config.serve.sequence_length,
        "phases": [
            {"name": phase.name, "steps": phase.steps, "start": phase.start, "end": phase.end} for phase in config.serve.phases
        ],
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
