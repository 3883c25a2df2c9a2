"""SGLang 0.5.23 around its EPLB modules: what these are told by the rest of a server, so that they run by themselves.

The modules of ``sglang.srt.eplb``, the state of its elastic ranks and its plug-in framework are the released ones; what they
import beside each other are shells, with the few values below.
"""

from __future__ import annotations

import tomllib
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch

from eplb_gap.experiments.hosts.shells import shell

REAL = ["sglang.srt.eplb.*", "sglang.srt.elastic_ep.elastic_ep", "sglang.srt.plugins", "sglang.srt.plugins.*"]
RESOURCES = SimpleNamespace(expert_location_metadata=None, expert_distribution_recorder=None)
MOE = SimpleNamespace()
PARALLEL = SimpleNamespace()
ENVIRONMENT = {"SGLANG_EPLB_P2P_BATCH_CHUNK_SIZE": 1 << 20}
"""Of SGLang's own variables; those that are not named are False."""
MODEL = SimpleNamespace()
CONFIG = SimpleNamespace(hf_config=None)
DEFAULTS = {
    "ep_num_redundant_experts": 8,
    "ep_dispatch_algorithm": "dynamic",
    "init_expert_location": "trivial",
    "eplb_algorithm": "auto",
    "eplb_rebalance_num_iterations": 6,
    "eplb_rebalance_layers_per_chunk": None,
    "eplb_min_rebalancing_utilization_threshold": 1.0,
    "expert_distribution_recorder_mode": "stat",
    "expert_distribution_recorder_buffer_size": 6,
    "moe_a2a_backend": "none",
    "deepep_mode": "auto",
    "elastic_ep_backend": None,
    "ep_join_mode": None,
    "is_ep_joiner": False,
}
"""Those of a server with ``--enable-eplb``, but for shorter intervals."""


class Withable:
    """A value that holds inside a with statement."""

    def __init__(self):
        self.value = None

    @contextmanager
    def with_value(self, value):
        self.value = value
        try:
            yield
        finally:
            self.value = None


class Environment:
    def __getattr__(self, name):
        return SimpleNamespace(get=lambda: ENVIRONMENT.get(name, False))


class Struct:
    def __init_subclass__(cls, **options): ...


class Architecture:
    @staticmethod
    def get_model_config_for_expert_location(hf_config):
        from sglang.srt.eplb.expert_location import ModelConfigForExpertLocation

        return ModelConfigForExpertLocation(MODEL.layers, MODEL.experts, MODEL.groups)


def serve(experts=16, layers=4, groups=4, ranks=4, nodes=2, rank=0, **moe):
    """Begin a server: of a model, on ranks, with options by their names in :data:`DEFAULTS`."""
    vars(MODEL).update(layers=layers, experts=experts, groups=groups)
    vars(MOE).clear()
    vars(MOE).update({**DEFAULTS, **moe})
    vars(PARALLEL).update(
        ep_size=ranks,
        nnodes=nodes,
        tp_rank=rank,
        tp_size=ranks,
        elastic_ep_initial_size=None,
        ep_join_rank_offset=0,
        max_ep_size=None,
        max_world_size=ranks + 2,  # room for two more to join
    )
    vars(RESOURCES).update(expert_location_metadata=None, expert_distribution_recorder=None)
    from sglang.srt.elastic_ep.elastic_ep import ElasticEPStateManager

    set_elastic_state(None)
    if MOE.elastic_ep_backend:
        ElasticEPStateManager.init(None)


def set_elastic_state(state):
    """Let SGLang's manager of elastic ranks have a state, or none."""
    from sglang.srt.elastic_ep import elastic_ep

    setattr(elastic_ep.ElasticEPStateManager, "_instance", state)  # noqa: B010


def enter(root, real=(), packages=(), given=None):
    """Let this process import SGLang from where it is unpacked, with further real modules, further packages that are shells, and
    further attributes of shells; where PyTorch has no GPU, what SGLang asks of one does nothing.
    """
    cpu = SimpleNamespace(device="cpu")
    no_gpu = {"empty_cache": lambda: None, "is_current_stream_capturing": lambda: False}
    for name, value in no_gpu.items():
        setattr(torch.get_device_module(), name, value)
    context = {
        "get_device": lambda: cpu,
        "get_exec": lambda: SimpleNamespace(moe=MOE, overlap=SimpleNamespace(enable_two_batch_overlap=False)),
        "get_parallel": lambda: PARALLEL,
        "get_resources": lambda: RESOURCES,
        "get_platform": lambda: SimpleNamespace(is_hip=False),
        "get_schedule": lambda: SimpleNamespace(chunked_prefill_size=16),
        "reports_expert_balancedness": lambda: False,
        "logs_expert_balancedness_to_server_log": lambda: False,
        "get_model": lambda: SimpleNamespace(model_path="model", load_format="auto", weight_cache_mode="off"),
    }
    utils = {
        "Withable": Withable,
        "get_device": lambda: "cpu",
        "get_bool_env_var": lambda *names: False,
        "is_cuda": lambda: False,
        "is_cpu": lambda: True,
    }
    known = {
        "sglang.srt.runtime_context": context,
        "sglang.srt.utils": utils,
        "sglang.srt.environ": {"envs": Environment()},
        "sglang.srt.model_loader": {"get_model_architecture": lambda config: (Architecture, None)},
        "msgspec": {"Struct": Struct},
        "tqdm": {"tqdm": list},
    }
    for module, attributes in (given or {}).items():
        known[module] = {**known.get(module, {}), **attributes}
    shell(root, [*REAL, *real], ["sglang", "einops", "msgspec", "tqdm", *packages], known)


def install_entry_points(folder):
    """Write the metadata of an installed package with the entry points of this project, for a folder on the path."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    place = Path(folder) / f"{project['name'].replace('-', '_')}-0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0\n")
    lines = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (place / "entry_points.txt").write_text("\n".join(lines))
