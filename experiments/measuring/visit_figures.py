"""Figures of rows that count visits: per token, and loads as means over layers and tokens."""

from __future__ import annotations

from statistics import fmean

from eplb_gap.experiments.measuring.rows import Row


def per_token(row: Row, *names: str, field: str = "visits") -> list[float]:
    """Return for every layer the visits of a token, over some parts of the routing together."""
    tokens = sum(row["tokens"][name] for name in names)
    return [sum(of) / tokens for of in zip(*(row[field][name] for name in names), strict=True)]


def fullest(row: Row, *names: str, field: str) -> float:
    """Return a load, the fullest over the mean, as the mean over layers and, by their tokens, over parts of the routing."""
    tokens = [row["tokens"][name] for name in names]
    total = sum(n * fmean(row[field][name]) for n, name in zip(tokens, names, strict=True))
    return float(total / sum(tokens))
