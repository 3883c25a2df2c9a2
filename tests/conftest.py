"""Property tests draw the same examples on every machine and every run; kernels are compiled before they are tested."""

from __future__ import annotations

from hypothesis import settings

from eplb_gap.heuristics.environment import compile_first

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("deterministic")

compile_first()
