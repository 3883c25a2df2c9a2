"""What to write into a serving system's own configuration to come closest to a controller, and what it cannot say.

Options are those of the released packages: vLLM 0.33.0, SGLang 0.5.23, vLLM-Ascend 0.23.0, and TensorRT-LLM's YAML of the load
balancer. Nothing is claimed of other versions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from eplb_gap.heuristics.control.controller import Controller
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError

DEEPSEEK = "initial_program"
ASCEND_POLICIES = {"vllm-ascend": 1, "swift-balance": 2, "flashlb": 3}
SGLANG_ALGORITHMS = {"sglang-deepseek": "deepseek", "sglang-vec": "deepseek_vec"}
"""Planners of hosts that can be chosen, by the heuristic that repeats them."""
MAP_FILE = "MAP"
"""Stands for the file that ``eplb-gap convert`` writes."""


@dataclass(frozen=True)
class HostFlags:
    """Configuration of a serving system.

    Parameters
    ----------
    host : str
    flags : str
        Options of the command line or, for TensorRT-LLM, lines of the YAML; empty where nothing comes close.
    cannot : tuple of str
        What of the controller they do not say, in words.
    """

    host: str
    flags: str
    cannot: tuple[str, ...]


Written = tuple[str, set[str], list[str]]
"""Flags, the settings that they say, and remarks."""


def host_flags(controller: Controller, deployment: Deployment, layers: int, host: str) -> HostFlags:
    """Return the configuration of a host that comes closest to a controller.

    Parameters
    ----------
    controller : Controller
        With interval, window and lag in steps of the host.
    deployment : Deployment
    layers : int
        Mixture-of-experts layers of the model.
    host : {"vllm", "sglang", "tensorrt-llm", "vllm-ascend"}

    Raises
    ------
    InputError
        If there is no such host.

    Examples
    --------
    >>> from eplb_gap import Controller, Deployment
    >>> from eplb_gap.analysis.online.host_flags import host_flags
    >>> found = host_flags(Controller("periodic", interval=50, method="initial_program"), Deployment(8, 12, 4), 3, "vllm")
    >>> found.flags
    '--enable-eplb --eplb-config \\'{"window_size": 50, "step_interval": 50, "num_redundant_experts": 4}\\''
    >>> found.cannot
    ()
    """
    if host not in WRITERS:
        raise InputError(f"host is {host!r}; {', '.join(WRITERS)} are known")
    if controller.kind == "none":
        return HostFlags(host, "", ("no flag is needed: EPLB stays off, and with it the redundant slots",))
    if controller.kind not in TIMED | {"static", "round-robin"}:
        return HostFlags(host, "", (f"a controller of kind {controller.kind!r}",))
    if deployment.unequal_slots:
        return HostFlags(host, "", ("GPUs with unequal slots",))
    flags, said, remarks = WRITERS[host](controller, deployment, layers)
    if not flags:
        return HostFlags(host, "", tuple(remarks))
    if deployment.dead_gpus and host != "sglang":
        remarks.append("dead GPUs: the flags are those of all GPUs alive")
    changed = controller.changed()
    changed.pop("method", None)
    if controller.kind in PLANNING and controller.method != DEEPSEEK:
        changed["method"] = controller.method
    remarks += [_words(key, value) for key, value in changed.items() if key not in said]
    return HostFlags(host, flags, tuple(remarks))


def in_host_steps(controller: Controller, recorded: int) -> Controller:
    """Return a controller for steps of which so many were summed into one when the loads were read.

    Parameters
    ----------
    controller : Controller
    recorded : int
        Steps of the host in one step of the loads.
    """
    if recorded == 1:
        return controller
    window = None if controller.window is None else controller.window * recorded
    return replace(controller, interval=controller.interval * recorded, window=window, lag=controller.lag * recorded)


PLANNING = {"static", "periodic", "threshold", "round-robin", "adaptive"}
"""Kinds that make full plans by a method that can be chosen."""
TIMED = {"periodic", "budgeted", "threshold", "adaptive"}
"""Kinds that look at all layers every interval."""
TIMES = {"interval", "window", "lag"}


def _words(key: str, value: object) -> str:
    """Return what cannot be said, in words."""
    known = {
        "moves": f"a limit of {value} of the replicas per re-plan: it moves whatever its new map asks for",
        "below": f"re-planning only below a balancedness of {value}",
        "gain": f"keeping layers whose makespan falls by less than {value} of it",
        "method": f"plans by {value}: its own planner plans",
        "lag": f"a lag of {value} steps: its maps serve as soon as they are there",
        "layers": f"{value} layers in turn",
        "decay": f"loads decayed by {value} a step",
    }
    return known.get(key, f"{key} {value}")


def _remarks_of_window(controller: Controller) -> list[str]:
    return ["a window that changes by what each would have served: the flags have one"] if controller.kind == "adaptive" else []


def _vllm(controller: Controller, deployment: Deployment, layers: int) -> Written:
    if controller.kind == "static":
        return "", set(), ["one map for ever: it reads neither maps nor loads at the start and re-plans at every step_interval"]
    if controller.kind == "round-robin":
        return "", set(), ["layers in turn: all are re-planned together"]
    config = {
        "window_size": controller.steps_needed,
        "step_interval": controller.interval,
        "num_redundant_experts": deployment.num_slots - deployment.num_experts,
    }
    said = {"interval", "window"} | ({"method"} if controller.method == "vllm-default" else set())
    return f"--enable-eplb --eplb-config '{json.dumps(config)}'", said, _remarks_of_window(controller)


def _sglang(controller: Controller, deployment: Deployment, layers: int) -> Written:
    redundant = f"--ep-num-redundant-experts {deployment.num_slots - deployment.num_experts}"
    if controller.kind == "static":
        return f"--init-expert-location {MAP_FILE}.json {redundant}", TIMES | {"method"}, []
    if controller.kind == "round-robin":
        return "", set(), ["layers in turn: eplb_rebalance_layers_per_chunk only spreads one re-plan over forward passes"]
    remarks, said = _remarks_of_window(controller), {"interval", "window"}
    buffer = min(controller.steps_needed, controller.interval)
    if controller.steps_needed > buffer:
        remarks.append(
            f"a window of {controller.steps_needed} steps: the recorder's buffer must not exceed the interval, {buffer} steps"
        )
    algorithm = SGLANG_ALGORITHMS.get(controller.method, "deepseek")
    if controller.method in SGLANG_ALGORITHMS:
        said.add("method")
    if deployment.dead_gpus:
        algorithm = "elasticity_aware"
    flags = [
        f"--enable-eplb --eplb-rebalance-num-iterations {controller.interval}",
        f"--expert-distribution-recorder-buffer-size {buffer} {redundant}",
        f"--eplb-algorithm {algorithm}{'_hierarchical' if deployment.policy == 'hierarchical' else ''}",
    ]
    if controller.below < 1:
        # Without the report SGLang does not measure what the threshold is compared with, and always rebalances.
        flags.append(
            f"--eplb-min-rebalancing-utilization-threshold {controller.below:g} --expert-balancedness-report-mode server_log"
        )
        said.add("below")
        remarks.append("the threshold is compared with its own mean utilisation over the window, all layers together")
    return " ".join(flags), said, remarks


def _tensorrt_llm(controller: Controller, deployment: Deployment, layers: int) -> Written:
    lines = [f"num_slots: {deployment.num_slots}"]
    if controller.kind == "static":
        given = f"initial_global_assignments: those of {MAP_FILE}.yaml"
        return "\n".join([*lines, "layer_updates_per_iter: 0", given]), TIMES | {"method"}, []
    if controller.kind == "round-robin" and controller.interval == 1:
        lines.append(f"layer_updates_per_iter: {controller.layers}")
        return "\n".join(lines), {"interval", "layers"}, ["its own decay, and loads since a layer's last turn as the window"]
    interval = controller.interval
    if controller.kind == "round-robin":
        interval = max(1, interval * layers // controller.layers)
    lines.append(f"layer_updates_per_iter: {max(1, -(-layers // interval))}")
    remarks = ["all layers at one time: they are re-planned in turn, on loads since a layer's last turn, decayed"]
    if interval > layers:
        remarks.append(f"an interval of {interval} steps: with one layer a step every layer has its turn after {layers}")
    return "\n".join(lines), TIMES - {"lag"} | {"layers", "decay"}, remarks


def _vllm_ascend(controller: Controller, deployment: Deployment, layers: int) -> Written:
    redundant = deployment.num_slots - deployment.num_experts
    if controller.kind == "static":
        config: dict[str, object] = {"expert_map_path": f"{MAP_FILE}.json", "num_redundant_experts": redundant}
        return _additional(config), TIMES | {"method"}, []
    if controller.kind == "round-robin":
        return "", set(), ["layers in turn: all are re-planned together"]
    waits = max(1, controller.lag)
    heat = max(1, controller.interval - waits)
    policy, said = _ascend_policy(controller)
    remarks = _remarks_of_window(controller)
    if controller.steps_needed != heat:
        remarks.append(f"a window of {controller.steps_needed} steps: it collects in {heat} and plans in {waits}")
    if heat + waits != controller.interval:
        remarks.append(f"interval {controller.interval}: {heat + waits} is the shortest")
    if policy == 1 and redundant > deployment.num_gpus:
        remarks.append("more than one redundant expert per device, which its default policy does not place")
    config = {
        "dynamic_eplb": True,
        "expert_heat_collection_interval": heat,
        "algorithm_execution_interval": waits,
        "num_redundant_experts": redundant,
        "eplb_policy_type": policy,
    }
    return "DYNAMIC_EPLB=true " + _additional(config), TIMES | said, remarks


def _ascend_policy(controller: Controller) -> tuple[int, set[str]]:
    """Return the policy that comes closest, and what it says: 1 DeepSeek-like, 2 bounded swaps from the map in use, 3 FlashLB."""
    if controller.kind in PLANNING and controller.method in ASCEND_POLICIES:
        return ASCEND_POLICIES[controller.method], {"method"}
    if controller.moves is not None or controller.gain > 0:
        return 2, set()
    if controller.method == "sample-average":
        return 3, set()
    return 1, {"method"} if controller.method == DEEPSEEK else set()


def _additional(config: dict[str, object]) -> str:
    return f"--additional-config '{json.dumps({'eplb_config': config})}'"


WRITERS: dict[str, Callable[[Controller, Deployment, int], Written]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "tensorrt-llm": _tensorrt_llm,
    "vllm-ascend": _vllm_ascend,
}
"""By the name of the serving system."""
