"""Traffic of maps as data and as the rows of a table."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from eplb_gap.analysis.network.served import Counted, MapTraffic
from eplb_gap.analysis.network.traffic import Figures, LayerTraffic, NetworkTraffic
from eplb_gap.problem.fractions import fraction, fractions

LEGEND = (
    "Busiest and GPU load are over the mean, every layer with its own busiest; even shares: an expert's tokens in equal parts on "
    "its replicas, as balance is measured."
)


def heading(counted: Counted) -> str:
    """Return what was counted, in one line."""
    first = counted.maps[0]
    return (
        f"Traffic of a layer, dispatch {first.planned.dispatch}, replicas {first.planned.replicas}: "
        f"{first.planned.tokens} tokens planned on, {first.served.tokens} served"
    )


def table_rows(counted: Counted) -> list[list[str]]:
    """Return a row for every figure: its name, and for every map what it is on planned and on served tokens."""
    first = counted.maps[0].planned
    paid = {"node-dedup": "node", "rank-dedup": "GPU"}.get(first.dispatch)
    rows: list[tuple[str, Callable[[Figures], str]]] = [
        ("nodes a token", lambda f: _number(f.node_visits)),
        ("GPUs a token", lambda f: _number(f.gpu_visits)),
        ("copies between nodes", lambda f: _number(f.between_nodes)),
        ("into the busiest node", lambda f: _over(f.node_in)),
        ("out of the busiest node", lambda f: _over(f.node_out)),
        ("into the busiest GPU", lambda f: _over(f.gpu_in)),
        (f"GPU load, {first.replicas}", lambda f: _over(f.gpu_load)),
        ("GPU load, even shares", lambda f: _over(f.even_gpu_load)),
        ("next layer needs no other node", lambda f: _percent(f.stays)),
    ]
    if paid is not None:
        bounded = [(f"{paid}s a token, bound", lambda f: _number(f.bound)), ("gap of visits", lambda f: _percent(f.gap))]
        rows[2:2] = bounded
    totals = [(one.planned.total(), one.served.total()) for one in counted.maps]
    return [[name, *(f"{shown(plan)} / {shown(serve)}" for plan, serve in totals)] for name, shown in rows]


LAYER_COLUMNS = ("layer", "nodes a token", "GPUs a token", "gap", "into the busiest node", "GPU load", "even shares")


def layer_rows(one: MapTraffic, layer_ids: list[int]) -> list[list[str]]:
    """Return a row of :data:`LAYER_COLUMNS` for every layer, on planned and on served tokens."""
    rows = []
    for row, identifier in enumerate(layer_ids):
        both = [
            (
                _number(f.node_visits),
                _number(f.gpu_visits),
                _percent(f.gap),
                *map(_over, (f.node_in, f.gpu_load, f.even_gpu_load)),
            )
            for f in (one.planned.layer(row), one.served.layer(row))
        ]
        rows.append([str(identifier), *(f"{plan} / {serve}" for plan, serve in zip(*both, strict=True))])
    return rows


def summary(counted: Counted, layer_ids: list[int]) -> dict[str, Any]:
    """Return traffic as JSON-ready data: totals and every layer, fractions as "p/q"."""
    first = counted.maps[0].planned
    return {
        "dispatch": first.dispatch,
        "replicas": first.replicas,
        "sources": first.sources,
        "notes": counted.notes,
        "maps": [
            {"map": one.name, "planning": _window(one.planned, layer_ids), "serving": _window(one.served, layer_ids)}
            for one in counted.maps
        ],
    }


def _window(found: NetworkTraffic, layer_ids: list[int]) -> dict[str, Any]:
    layers = [
        {"layer": identifier, **_figures(found.layer(row)), **_counts(found.layers[row])}
        for row, identifier in enumerate(layer_ids)
    ]
    return {"tokens": found.tokens, **_figures(found.total()), "layers": layers}


def _figures(figures: Figures) -> dict[str, str | None]:
    return {name: None if value is None else fraction(value) for name, value in vars(figures).items()}


def _counts(layer: LayerTraffic) -> dict[str, Any]:
    counted = layer.counted
    return {
        "proof": None if layer.bound is None else layer.bound.proof,
        "into_nodes": fractions(counted.into_nodes),
        "out_of_nodes": fractions(counted.out_of_nodes),
        "into_gpus": fractions(counted.into_gpus),
        "out_of_gpus": fractions(counted.out_of_gpus),
        "gpu_loads": list(counted.gpu_loads),
    }


def _number(value: Fraction | None) -> str:
    return "-" if value is None else f"{float(value):.3f}"


def _over(value: Fraction | None) -> str:
    return "-" if value is None else f"{float(value):.4f}"


def _percent(value: Fraction | None) -> str:
    return "-" if value is None else f"{100 * float(value):.1f} %"
