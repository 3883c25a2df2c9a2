"""The five recommendations that a published search made for its next programs, as configurations of the pipeline.

Each is its first base with one rule replaced; further bases are what else it must be held against.
"""

from __future__ import annotations

from dataclasses import dataclass

from eplb_gap.heuristics.config import PipelineConfig, Stage


@dataclass(frozen=True)
class Recommendation:
    """One recommendation as a program.

    Parameters
    ----------
    number : int
        1 to 5, as the search numbers them.
    config : PipelineConfig
    bases : tuple of str
        Keys of :data:`eplb_gap.heuristics.programs.seed_programs.SEED_PROGRAMS`; the first differs from the program in this rule
        alone.
    """

    number: int
    config: PipelineConfig
    bases: tuple[str, ...]


def _two_by_two(steps: int) -> Stage:
    return Stage("lpt", "candidates", steps, rank_by_item=True, candidates=2)


EPSILON = PENALTY = 0.01
"""Mean GPU loads; DeepSeek's LPT leaves the fullest GPU about half of this above the mean."""

RECOMMENDATIONS: dict[str, Recommendation] = {
    "two-by-two-swap": Recommendation(
        1, PipelineConfig(groups=_two_by_two(1), replicas=_two_by_two(1)), ("moe_eplb_modular_refine", "single_swap_refinement")
    ),
    "two-by-two-swaps": Recommendation(
        1,
        PipelineConfig(groups=_two_by_two(2), replicas=_two_by_two(2)),
        ("moe_eplb_modular_refine", "multi_swap_refinement_balanced_packing"),
    ),
    "adams-fix-up": Recommendation(2, PipelineConfig(fix_ups=1), ("initial_program",)),
    "hamilton-fix-up": Recommendation(
        2,
        PipelineConfig(replication="hamilton", replicas=Stage("diversity_lpt"), fix_ups=1),
        ("proportional_quota_replication", "diversity_aware_gpu_packing"),
    ),
    "diversity-epsilon": Recommendation(
        3, PipelineConfig(replicas=Stage("epsilon_lpt", epsilon=EPSILON)), ("diversity_aware_gpu_packing", "initial_program")
    ),
    "diversity-penalty": Recommendation(
        3, PipelineConfig(replicas=Stage("penalty_lpt", penalty=PENALTY)), ("diversity_aware_gpu_packing", "initial_program")
    ),
    "hybrid-on-copies": Recommendation(4, PipelineConfig(replication="hybrid_on_copies"), ("initial_program",)),
    "hybrid-on-extras": Recommendation(4, PipelineConfig(replication="hybrid_on_extras"), ("initial_program",)),
    "stage-specific-swaps": Recommendation(
        5,
        PipelineConfig(groups=Stage("lpt", "nearest", 1), replicas=Stage("lpt", "nearest", 2)),
        ("single_swap_refinement", "multi_swap_refinement_balanced_packing"),
    ),
}
"""Programs by name, in the order of the recommendations; where one can be read in two ways, both."""
