from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.problem import Deployment, InputError, Placement, PlacementError, metrics, verify
from eplb_gap.problem.uneven_map import GpuLists

UNEVEN = GpuLists.from_lists([[[0, 1], [2, 0, 0]], [[1], [2, 0]]], 3)
LOADS = [[7, 1, 3], [5, 2, 4]]


@st.composite
def maps(draw: st.DrawFn) -> tuple[list[list[list[int]]], int]:
    experts, gpus = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        held: list[list[int]] = [[] for _ in range(gpus)]
        for expert in [*range(experts), *draw(st.lists(st.integers(0, experts - 1), max_size=6))]:
            held[draw(st.integers(0, gpus - 1))].append(expert)
        layers.append(held)
    return layers, experts


@given(maps(), st.data())
def test_everything_is_what_a_plain_count_says(drawn: tuple[list[list[list[int]]], int], data: st.DataObject) -> None:
    layers, experts = drawn
    rows = [data.draw(st.lists(st.integers(0, 2**60), min_size=experts, max_size=experts)) for _ in layers]
    mapped = GpuLists.from_lists(layers, experts)
    assert mapped.sizes().tolist() == [[len(gpu) for gpu in layer] for layer in layers]
    counts = [Counter(expert for gpu in layer for expert in gpu) for layer in layers]
    assert mapped.counts().tolist() == [[count[e] for e in range(experts)] for count in counts]
    assert mapped.duplicates().tolist() == [sum(len(gpu) - len(set(gpu)) for gpu in layer) for layer in layers]
    totals = [
        [sum((Fraction(row[e], count[e]) for e in gpu), Fraction(0)) for gpu in layer]
        for row, count, layer in zip(rows, counts, layers, strict=True)
    ]
    assert mapped.makespans(rows) == [max(layer) for layer in totals]
    for found, expected in zip(mapped.gpu_loads(rows), totals, strict=True):
        assert found == pytest.approx([float(total) for total in expected])


@given(st.integers(0, 2**32 - 1))
def test_an_even_map_has_the_numbers_of_the_placement(seed: int) -> None:
    generator = np.random.default_rng(seed)
    deployment = Deployment(5, 8, 4)
    slots = np.stack([generator.permutation(np.r_[np.arange(5), generator.integers(0, 5, 3)]) for _ in range(2)])
    loads = generator.integers(0, 2**59, (2, 5))
    placement = Placement(slots, 5)
    mapped = GpuLists(placement.by_gpu(4), 5)
    assert mapped.makespans(loads) == verify(placement, loads, deployment)
    assert mapped.gpu_loads(loads) == pytest.approx(metrics.gpu_loads(placement, loads, 4))
    assert mapped.counts().tolist() == placement.counts().tolist()
    assert mapped.duplicates().tolist() == metrics.duplicates(placement, 4).tolist()


def test_a_worked_example() -> None:
    assert UNEVEN.experts.tolist() == [[[0, 1, -1], [2, 0, 0]], [[1, -1, -1], [2, 0, -1]]]
    assert UNEVEN.makespans(LOADS) == [Fraction(23, 3), Fraction(9)]
    assert UNEVEN.gpu_loads(LOADS).tolist() == pytest.approx(np.array([[10 / 3, 23 / 3], [2, 9]]))
    assert UNEVEN.counts().tolist() == [[3, 1, 1], [1, 1, 1]]
    assert UNEVEN.duplicates().tolist() == [1, 0]
    assert (UNEVEN.num_layers, UNEVEN.num_gpus, UNEVEN.num_experts) == (2, 2, 3)


def test_it_is_named() -> None:
    assert UNEVEN.describe() == "GPUs hold 1 to 3 experts"
    assert GpuLists.from_lists([[[0], [1]]], 2).describe() == "GPUs hold 1 experts each"


def test_the_largest_loads_are_exact() -> None:
    most = (2**63 - 1) // 3
    mapped = GpuLists.from_lists([[[0, 1, 2], [0, 1, 0]]], 3)
    assert mapped.makespans([[most, most, most]]) == [Fraction(most, 3) + Fraction(most, 2) + most]


@pytest.mark.parametrize(
    ("experts", "error", "message"),
    [
        ([[[0, 1], [3, -1]]], PlacementError, "layer 0, GPU 1: expert 3 does not exist; experts are 0 to 2"),
        ([[[0, 1], [-2, 2]]], PlacementError, "layer 0, GPU 1: expert -2 does not exist; experts are 0 to 2"),
        ([[[0, 1], [-1, 2]]], PlacementError, "layer 0, GPU 1: expert 2 stands behind padding; -1 is needed behind all experts"),
        ([[[0, 1], [0, -1]]], PlacementError, "layer 0: expert 2 has no replica; every expert needs at least one"),
        ([[0, 1, 2]], InputError, "integers with 3 non-empty axes are needed"),
        ([[[]]], InputError, "integers with 3 non-empty axes are needed"),
        ([[[0.0, 1.0, 2.0]]], InputError, "experts is float64"),
        ([[[True, False]]], InputError, "experts is bool"),
    ],
)
def test_what_is_no_map_is_refused(experts: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        GpuLists(experts, 3)
    assert message in str(caught.value)


def test_layers_on_different_gpus_are_refused() -> None:
    with pytest.raises(InputError, match="unequal numbers of GPUs"):
        GpuLists.from_lists([[[0], [1]], [[0, 1]]], 2)


@pytest.mark.parametrize("loads", [[[1, 2, 3]], [[1, 2], [3, 4]], [[1, 2, 3, 4], [1, 2, 3, 4]]])
def test_loads_of_another_shape_are_refused(loads: Any) -> None:
    for function in (UNEVEN.makespans, UNEVEN.gpu_loads):
        with pytest.raises(InputError, match=r"loads has shape .*; that of the map, \(2, 3\)"):
            function(loads)
