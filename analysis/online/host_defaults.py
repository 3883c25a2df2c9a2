"""The controller that a serving system runs unless told otherwise, fitted to recordings that are shorter than its interval."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eplb_gap.heuristics.control.catalogue import KINDS
from eplb_gap.heuristics.control.controller import Controller
from eplb_gap.heuristics.control.presets import PRESETS
from eplb_gap.heuristics.registry import get_method
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError

HOSTS = {
    "vllm": "vllm-default",
    "sglang": "sglang-default",
    "tensorrt-llm": "tensorrt-llm-online",
    "vllm-ascend": "vllm-ascend-default",
}
"""Key of a serving system -> name of the preset with its default."""
NAMES = {"vllm": "vLLM", "sglang": "SGLang", "tensorrt-llm": "TensorRT-LLM", "vllm-ascend": "vLLM-Ascend"}
"""Key of a serving system -> how it writes itself."""


@dataclass(frozen=True)
class HostDefault:
    """A default as it is replayed.

    Parameters
    ----------
    controller : Controller
    changed : list of str
        In which way and why it is not the system's own, in words.
    """

    controller: Controller
    changed: list[str]


def host_default(host: str, steps: int, layers: int, deployment: Deployment, recorded: int = 1) -> HostDefault:
    """Return the default of a serving system so that a map of its own serves from the first judged step on.

    Where its first map would come later, interval, window and lag are shortened by one factor, so that it comes just then. Such a
    default re-plans more often than the real one, whose maps grow older: what is found for it is rather too good.

    Parameters
    ----------
    host : str
        A key of :data:`HOSTS`.
    steps : int
        Steps before those that are judged.
    layers : int
    deployment : Deployment
    recorded : int, default 1
        Steps of the server in one step of the loads.

    Raises
    ------
    InputError
        If there is no such host.
    """
    if host not in HOSTS:
        raise InputError(f"host is {host!r}; {', '.join(HOSTS)} are known")
    default, changed = PRESETS[HOSTS[host]], []
    if default.kind == "round-robin":  # a layer's loads are those since its last turn
        in_turn = min(default.layers * recorded, layers)
        default = replace(default, layers=in_turn, window=min(-(-layers // in_turn), steps))
    else:
        default = replace(
            default,
            interval=-(-default.interval // recorded),
            window=-(-default.steps_needed // recorded),
            lag=-(-default.lag // recorded),
        )
    assert default.window is not None
    first = KINDS[default.kind].first_decision(default) + default.lag
    if first > steps:
        lag = default.lag * steps // first
        interval = max(1, min(default.interval * steps // first, steps - lag))
        window = max(1, min(default.window * steps // first, interval))
        changed.append(
            f"its interval of {default.interval} steps, window of {default.window} and lag of {default.lag} are shortened to "
            f"{interval}, {window} and {lag}, so that a map of its own serves the held-out steps; the real one's maps grow older"
        )
        default = replace(default, interval=interval, window=window, lag=min(lag, interval))
    if not get_method(default.method).plans(deployment.live):
        changed.append(f"{default.method} refuses this deployment; fast stands for it")
        default = replace(default, method="fast")
    return HostDefault(default, changed)
