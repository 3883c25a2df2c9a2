"""Text of several domains: one folder a domain, one file a document; split, tokenised and sampled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError

HELD_OUT_SHARE = 5  # one document in five is never trained on; the served traffic is drawn from those


@dataclass(frozen=True)
class Domain:
    """Documents of one domain and what is known of where they come from."""

    name: str
    training: tuple[str, ...]
    held_out: tuple[str, ...]
    bytes_used: int
    bytes_found: int
    source: str
    licence: str


def read_corpus(folder: Path, max_domain_bytes: int) -> list[Domain]:
    """Read ``folder/DOMAIN/*`` in an order that depends on the file names alone.

    Parameters
    ----------
    folder : Path
        One sub-folder per domain, UTF-8 text files inside; an optional ``corpus.json`` maps a domain to its
        ``source`` and ``licence``.
    max_domain_bytes : int
        Documents are taken in the order of their names' hashes until this many bytes; the rest is counted in
        ``bytes_found``.

    Raises
    ------
    InputError
        If the folder has no domain, or a domain no document in one of its two parts, or a file is not UTF-8.
    """
    if not folder.is_dir():
        raise InputError(f"corpus: {folder} is not a folder; give one with a sub-folder of text files per domain")
    notes_file = folder / "corpus.json"
    notes = json.loads(notes_file.read_text(encoding="utf-8")) if notes_file.exists() else {}
    domains = [
        _read_domain(path, max_domain_bytes, notes.get(path.name, {})) for path in sorted(folder.iterdir()) if path.is_dir()
    ]
    if not domains:
        raise InputError(f"corpus: {folder} has no sub-folder; one per domain is needed")
    return domains


def _read_domain(folder: Path, max_bytes: int, notes: dict[str, str]) -> Domain:
    digests = {path: hashlib.sha256(path.name.encode()).digest() for path in folder.iterdir() if path.is_file()}
    parts: tuple[list[str], list[str]] = ([], [])
    used = found = 0
    for path in sorted(digests, key=lambda p: digests[p]):
        size = path.stat().st_size
        found += size
        if used and used + size > max_bytes:
            continue
        try:
            text = path.read_bytes()[:max_bytes].decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"corpus: {path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
        used += size
        parts[digests[path][-1] % HELD_OUT_SHARE == 0].append(text)
    if not all(parts):
        raise InputError(
            f"corpus: domain {folder.name!r} has {len(parts[0])} training and {len(parts[1])} held-out documents; "
            "both need at least one (add more, smaller files)"
        )
    return Domain(
        folder.name,
        tuple(parts[0]),
        tuple(parts[1]),
        used,
        found,
        notes.get("source", str(folder.name)),
        notes.get("licence", "not stated"),
    )


class TokenStreams:
    """Token streams of every domain, training and held-out, under one byte-pair encoding.

    Parameters
    ----------
    domains : list of Domain
    vocabulary : int
        Size of the byte-level BPE, trained on the training part of the domains in ``trained_on``.
    trained_on : set of str
        Domains the encoding (and the model) may see.
    """

    def __init__(self, domains: list[Domain], vocabulary: int, trained_on: set[str]) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=["<end>"],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        tokenizer.train_from_iterator((text for d in domains if d.name in trained_on for text in d.training), trainer)
        self.tokenizer_sha256 = hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
        self.training = {d.name: self._encode(tokenizer, d.training) for d in domains}
        self.held_out = {d.name: self._encode(tokenizer, d.held_out) for d in domains}

    @staticmethod
    def _encode(tokenizer: Any, texts: tuple[str, ...]) -> np.ndarray:
        encoded = tokenizer.encode_batch(list(texts))
        return np.concatenate([np.asarray([*e.ids, 0], dtype=np.int32) for e in encoded])

    @staticmethod
    def sample(
        streams: dict[str, np.ndarray], mix: dict[str, float], count: int, length: int, generator: np.random.Generator
    ) -> np.ndarray:
        """Draw ``count`` pieces of ``length`` tokens, their domains from ``mix``; int64 [count, length]."""
        names = sorted(mix)
        weights = np.array([mix[name] for name in names])
        chosen = generator.choice(len(names), size=count, p=weights / weights.sum())
        pieces = []
        for index in chosen:
            stream = streams[names[index]]
            if stream.size <= length:
                raise InputError(f"corpus: domain {names[index]!r} has {stream.size} tokens; more than {length} are needed")
            start = int(generator.integers(stream.size - length))
            pieces.append(stream[start : start + length])
        return np.stack(pieces).astype(np.int64)
