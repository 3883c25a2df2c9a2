"""The ten programs of a published evolutionary search, as configurations of one pipeline.

Generation 0 is DeepSeek's EPLB. The keys are the search's own patch names, in the order of their generation.
"""

from __future__ import annotations

from eplb_gap.heuristics.config import PipelineConfig, Stage

SEED_PROGRAMS: dict[str, PipelineConfig] = {
    "initial_program": PipelineConfig(),
    "diversity_aware_gpu_packing": PipelineConfig(replicas=Stage("diversity_lpt")),
    "local_swap_refine_in_packing": PipelineConfig(groups=Stage("lpt", "unchecked", 8), replicas=Stage("lpt", "unchecked", 8)),
    "eplb_snake_pipeline": PipelineConfig(groups=Stage("snake"), replicas=Stage("snake")),
    "diverse_pack_projload_and_incremental_ratio": PipelineConfig(
        groups=Stage("lpt", "unchecked", 4), replicas=Stage("projected_diversity_lpt")
    ),
    "proportional_quota_replication": PipelineConfig(replication="hamilton", replicas=Stage("diversity_lpt")),
    "single_swap_refinement": PipelineConfig(groups=Stage("lpt", "nearest", 1), replicas=Stage("lpt", "nearest", 1)),
    "moe_eplb_modular_refine": PipelineConfig(
        groups=Stage("lpt", "extremes", 1, rank_by_item=True), replicas=Stage("lpt", "extremes", 1, rank_by_item=True)
    ),
    "multi_swap_refinement_balanced_packing": PipelineConfig(
        groups=Stage("lpt", "nearest", 2), replicas=Stage("lpt", "nearest", 2)
    ),
    "rr_waterfill_hare": PipelineConfig(
        groups=Stage("round_lpt", "extremes", 1), replication="hamilton", replicas=Stage("round_lpt", "extremes", 1)
    ),
}
"""Configurations by patch name, generation 0 first."""
