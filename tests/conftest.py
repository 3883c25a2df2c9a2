"""Property tests draw the same examples on every machine and every run; kernels are compiled before they are tested."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from eplb_gap.heuristics.environment import compile_first
from eplb_gap.heuristics.planner import fast, uneven

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("deterministic")

compile_first()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest file: at the end one process would wait for it."""
    items.sort(key=lambda item: item.path.name != "test_wheel.py")


@pytest.fixture(scope="module")
def short_plans() -> Iterator[None]:
    """Let the default planners search tiny layers for a tenth of their time, where they are not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "SHORT_WORK", fast.SHORT_WORK / 10)
        patch.setattr(uneven.plan, "__defaults__", (uneven.TOLERANCE, uneven.STEPS // 10))
        yield
