"""Training loop of the small model: AdamW, resumable from its own checkpoints."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eplb_gap.experiments.loads.moe_trace.config import RecordConfig
from eplb_gap.experiments.loads.moe_trace.corpus import TokenStreams
from eplb_gap.experiments.loads.moe_trace.model import LanguageModel
from eplb_gap.problem.atomic import replacing
from eplb_gap.problem.errors import InputError

Progress = Callable[[int, int, str], None]


def train(
    config: RecordConfig, streams: TokenStreams, checkpoint: Path, progress: Progress
) -> tuple[LanguageModel, dict[str, Any]]:
    """Train the model, or go on from ``checkpoint`` where an earlier run stopped.

    Parameters
    ----------
    config : RecordConfig
    streams : TokenStreams
        The same streams as in the earlier run, or its checkpoint is refused.
    checkpoint : Path
        Written every ``config.train.checkpoint_every`` steps and at the end.
    progress : callable
        Called as ``progress(done, total, text)`` after each step.

    Returns
    -------
    LanguageModel, dict
        The trained model and a summary: final training loss, held-out loss per trained domain (nats per token), parameters.

    Raises
    ------
    InputError
        If the checkpoint belongs to another configuration or corpus.
    """
    torch.manual_seed(config.seed)
    model = LanguageModel(config.model)
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.train.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.train.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    identity = _identity(config, streams)
    trained_on = sorted(set(streams.training) - set(config.held_out_domains))
    mix = dict.fromkeys(trained_on, 1.0)
    first, recent = 0, []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["identity"] != identity:
            raise InputError(
                f"checkpoint: {checkpoint} belongs to another configuration or corpus; remove it or name another file"
            )
        model.load_state_dict(state["model"])
        if "optimizer" in state:
            optimizer.load_state_dict(state["optimizer"])
        first, recent = state["step"], list(state["recent"])
    model.train()
    for step in range(first, config.train.steps):
        generator = np.random.default_rng([config.seed, 1, step])
        batch = streams.sample(streams.training, mix, config.train.sequences, config.train.sequence_length + 1, generator)
        for group in optimizer.param_groups:
            group["lr"] = config.train.learning_rate * _schedule(step, config)
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(torch.from_numpy(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        for mixture in model.mixtures:
            mixture.balance(config.train.bias_step)
        recent = [*recent[-49:], float(loss.detach())]
        progress(step + 1, config.train.steps, f"training loss {sum(recent) / len(recent):.3f}")
        done = step + 1
        if done % config.train.checkpoint_every == 0 and done < config.train.steps:
            _save(checkpoint, identity, model, done, recent, optimizer)
    if first < config.train.steps:
        _save(checkpoint, identity, model, config.train.steps, recent, None)
    model.eval()
    return model, {
        "training_loss": sum(recent) / len(recent),
        "held_out_loss": {name: _held_out_loss(model, streams, name, config) for name in trained_on},
        "unigram_loss": {name: _unigram_loss(streams, name, config.model.vocabulary) for name in trained_on},
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _identity(config: RecordConfig, streams: TokenStreams) -> str:
    fields = {
        "model": dataclasses.asdict(config.model),
        "train": dataclasses.asdict(config.train),
        "seed": config.seed,
        "held_out": config.held_out_domains,
    }
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(streams.training):
        digest.update(name.encode() + streams.training[name].tobytes())
    return digest.hexdigest()


def _schedule(step: int, config: RecordConfig) -> float:
    warm = min(1.0, (step + 1) / config.train.warmup_steps)
    return warm * (0.1 + 0.45 * (1 + math.cos(math.pi * step / config.train.steps)))


def _save(
    path: Path, identity: str, model: LanguageModel, step: int, recent: list[float], optimizer: torch.optim.Optimizer | None
) -> None:
    state: dict[str, Any] = {"identity": identity, "model": model.state_dict(), "step": step, "recent": recent}
    if optimizer is not None:
        state["optimizer"] = optimizer.state_dict()
    with replacing(path) as partial:
        torch.save(state, partial)


def _held_out_loss(model: LanguageModel, streams: TokenStreams, name: str, config: RecordConfig) -> float:
    generator = np.random.default_rng([config.seed, 2])
    length = config.train.sequence_length + 1
    with torch.inference_mode():
        losses = [
            float(
                model.loss(
                    torch.from_numpy(streams.sample(streams.held_out, {name: 1.0}, config.train.sequences, length, generator))
                )
            )
            for _ in range(4)
        ]
    return sum(losses) / len(losses)


def _unigram_loss(streams: TokenStreams, name: str, vocabulary: int) -> float:
    seen = np.bincount(streams.training[name], minlength=vocabulary) + 1.0
    return float(-np.log(seen / seen.sum())[streams.held_out[name]].mean())
