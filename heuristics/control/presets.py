"""Controllers by name: the defaults of the serving systems' released packages, as far as these settings can say them.

All four start from a map that looked at no loads. None limits the moves of a re-plan.
"""

from __future__ import annotations

from eplb_gap.heuristics.control.controller import Controller

PRESETS: dict[str, Controller] = {
    controller.name: controller
    for controller in (
        # vLLM 0.33.0, EPLBConfig: window_size 1000, step_interval 3000, policy "default".
        Controller("periodic", "vllm-default", interval=3000, window=1000, method="initial_program"),
        # SGLang 0.5.23: eplb_rebalance_num_iterations 1000, the recorder's buffer as long, utilisation threshold 1.0 (always).
        Controller("periodic", "sglang-default", interval=1000, window=1000, method="initial_program"),
        # TensorRT-LLM's online balancer: layer_updates_per_iter layers an iteration, one after the other; loads start anew
        # after a layer's update.
        Controller("round-robin", "tensorrt-llm-online", interval=1, window=58, layers=1, decay=1.0, method="initial_program"),
        # vLLM-Ascend 0.23.0: expert_heat_collection_interval 600, then algorithm_execution_interval 50 until the map serves;
        # eplb_policy_type 2, which knows no nodes.
        Controller("periodic", "vllm-ascend-default", interval=650, window=600, lag=50, method="swift-balance"),
    )
}
"""By name; TensorRT-LLM's window is as many iterations as a model of 58 layers takes for a round."""
