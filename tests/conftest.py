"""Property tests draw the same examples on every machine and every run; kernels are compiled before they are tested."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from eplb_gap.heuristics.environment import compile_first
from eplb_gap.heuristics.planner import fast, uneven

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("deterministic")

compile_first()


HOSTS = Path(__file__).resolve().parent / "hosts"
"""Tests that download released packages run only where they are named: ``pytest tests/hosts -s``."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the tests of hosts out unless an argument names them."""
    named = any(HOSTS in (place := Path(argument.partition("::")[0]).resolve(), *place.parents) for argument in config.args)
    return True if collection_path == HOSTS and not named else None


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
