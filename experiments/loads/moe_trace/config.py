"""Sizes, training recipe and traffic of the recorded trace, in one place."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the mixture-of-experts language model (DeepSeek-V3's layout, small width)."""

    vocabulary: int = 8192
    width: int = 128
    heads: int = 4
    dense_layers: int = 1
    moe_layers: int = 8
    experts: int = 256
    groups: int = 8
    top_groups: int = 4
    top_experts: int = 8
    expert_hidden: int = 32
    shared_hidden: int = 64
    dense_hidden: int = 384
    router_group_share: float = 0.5  # variance share of the vector that the routers of one group have in common


@dataclass(frozen=True)
class TrainConfig:
    """Optimiser settings; ``bias_step`` is the step of the auxiliary-loss-free load balancing."""

    steps: int = 1300
    sequences: int = 8
    sequence_length: int = 256
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    weight_decay: float = 0.05
    bias_step: float = 1e-3
    checkpoint_every: int = 100


@dataclass(frozen=True)
class Phase:
    """A stretch of serving steps whose mix of domains moves linearly from ``start`` to ``end``.

    Where ``sequences`` is given, so does the expected number of sequences in a step, which is then Poisson around it and kept
    within half and three halves of the traffic's number; else every step has that number.
    """

    name: str
    steps: int
    start: dict[str, float]
    end: dict[str, float]
    sequences: tuple[float, float] | None = None


@dataclass(frozen=True)
class ServeConfig:
    """Traffic: every step is a batch of ``sequences`` held-out text pieces of ``sequence_length`` tokens.

    ``stream`` numbers the random streams that pieces are drawn from; traffic of another number meets other pieces.
    """

    phases: tuple[Phase, ...]
    sequences: int = 32
    sequence_length: int = 64
    window_steps: int = 100
    stream: int = 3

    def repeated(self, steps: int) -> ServeConfig:
        """Return traffic of so many steps: the phases over and over, the last one cut where the steps end."""
        phases: list[Phase] = []
        for phase in itertools.cycle(self.phases):
            if not steps:
                break
            phases.append(phase if phase.steps <= steps else _beginning(phase, steps))
            steps -= phases[-1].steps
        return replace(self, phases=tuple(phases))


def _beginning(phase: Phase, steps: int) -> Phase:
    share = steps / phase.steps
    names = sorted({*phase.start, *phase.end})
    end = {name: (1 - share) * phase.start.get(name, 0.0) + share * phase.end.get(name, 0.0) for name in names}
    sequences = phase.sequences
    if sequences is not None:
        sequences = sequences[0], (1 - share) * sequences[0] + share * sequences[1]
    return Phase(phase.name, steps, phase.start, end, sequences)


_MANUALS = {"english": 0.40, "german": 0.30, "c_headers": 0.30}
_BOOKS = {"dictionary": 0.45, "german": 0.30, "french": 0.25}
_UNSEEN = {"perl": 0.55, "russian": 0.20, "computing_dictionary": 0.25}
_CODE = {"python": 0.45, "c_headers": 0.25, "spanish": 0.30}

DEBIAN_PHASES = (
    Phase("warm-up", 100, {"english": 0.70, "computing_dictionary": 0.30}, _MANUALS),
    Phase("stable", 400, _MANUALS, _MANUALS),
    Phase("slow drift", 400, _MANUALS, _BOOKS),
    Phase("abrupt change", 100, _UNSEEN, _UNSEEN),
    Phase("mixed", 200, _BOOKS, _CODE),
)
"""Traffic of the shipped trace; the domains are those of :mod:`eplb_gap.experiments.loads.moe_trace.debian_corpus`."""


@dataclass(frozen=True)
class RecordConfig:
    """Everything that determines a recording, apart from the text."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    serve: ServeConfig = field(default_factory=lambda: ServeConfig(DEBIAN_PHASES))
    held_out_domains: tuple[str, ...] = ("perl", "russian")
    max_domain_bytes: int = 3_000_000
    seed: int = 20261124


DOMAINS_ALONE = ("c_headers", "dictionary", "english", "french", "german", "perl", "python", "russian")


def single_domains_config() -> RecordConfig:
    """Return the same model serving 100 steps of one domain after the other: the pieces of mixed traffic."""
    return RecordConfig(serve=ServeConfig(tuple(Phase(name, 100, {name: 1.0}, {name: 1.0}) for name in DOMAINS_ALONE)))


def tiny_config(domains: tuple[str, ...]) -> RecordConfig:
    """Return a seconds-long recording over any domains: for tests and for a first look at a new corpus."""
    even = {name: 1.0 / len(domains) for name in domains}
    first, last = {domains[0]: 1.0}, {domains[-1]: 1.0}
    return RecordConfig(
        model=ModelConfig(
            vocabulary=512,
            width=32,
            heads=2,
            moe_layers=2,
            experts=32,
            groups=4,
            top_groups=2,
            top_experts=4,
            expert_hidden=16,
            shared_hidden=16,
            dense_hidden=64,
        ),
        train=TrainConfig(steps=12, sequences=4, sequence_length=32, warmup_steps=2, checkpoint_every=6),
        serve=ServeConfig(
            (Phase("mixed", 8, even, even), Phase("drift", 8, first, last)),
            sequences=4,
            sequence_length=32,
            window_steps=4,
        ),
        held_out_domains=(),
        seed=7,
    )
