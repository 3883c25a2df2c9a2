"""One rank of vLLM's own state machine on this machine's CPU: what it needs around it, and what a test does to it.

What a GPU would do, streams and events, is left out: a copy on the CPU is finished when the call returns.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.distributed as dist

from eplb_gap.experiments.hosts.shells import hollow, shell

LAYERS, EXPERTS, LOCAL, GROUPS, WORLD, SPARE = 3, 16, 8, 4, 4, 3
WINDOW, INTERVAL = 4, 24
STEPS = 120
"""More than any rebalance takes."""


class Idle:
    """A stream or an event of a device that has nothing to do."""

    def __init__(self, *given: Any, **named: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *given, **named: 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *given: object) -> None:
        pass


class Logger(logging.LoggerAdapter):
    """vLLM's logger."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(self, name.removesuffix("_once")) if name.endswith("_once") else super().__getattribute__(name)


class Coordinator(hollow("StatelessGroupCoordinator")):  # type: ignore[misc]
    """Ranks that plan together."""

    def __init__(self, ranks: list[int]) -> None:
        self.world_size = len(ranks)
        self.device_group, self.cpu_group = dist.new_group(ranks), dist.new_group(ranks)
        self.tcp_store_group = self.cpu_group
        self.rank = dist.get_rank()
        self.device = torch.device("cpu")


class Model:
    """A model of nothing but experts: the weights of expert e in layer l hold 1000 l + e."""

    def __init__(self, ranks: int, rank: int) -> None:
        self.num_moe_layers, self.num_logical_experts, self.num_routed_experts = LAYERS, EXPERTS, EXPERTS
        self.num_expert_groups, self.num_local_physical_experts = GROUPS, LOCAL
        self.moe_layers: list[Any] = []
        self.resize(ranks)
        first = torch.tensor([slot % EXPERTS for slot in range(self.num_physical_experts)])
        mine = first[rank * LOCAL : (rank + 1) * LOCAL] if rank < ranks else torch.full((LOCAL,), -7)
        self.expert_weights = [[filled(mine + 1000 * layer, width) for width in (3, 5)] for layer in range(LAYERS)]

    def resize(self, ranks: int) -> None:
        self.num_physical_experts = ranks * LOCAL
        self.num_redundant_experts = self.num_physical_experts - EXPERTS

    def set_eplb_state(self, *tensors: torch.Tensor) -> None:
        pass


def filled(values: torch.Tensor, width: int) -> torch.Tensor:
    """Return weights [experts, width] of which each expert's hold its value."""
    return values.to(torch.float32)[:, None].repeat(1, width)


def balancedness(table: torch.Tensor, loads: np.ndarray, ranks: int) -> float:
    """Return mean over largest GPU load, summed over layers."""
    slots = np.asarray(table)
    counts = np.stack([np.bincount(row, minlength=EXPERTS) for row in slots])
    per_gpu = np.take_along_axis(loads / counts, slots, axis=1).reshape(LAYERS, ranks, -1).sum(axis=2)
    return float(per_gpu.mean(axis=1).sum() / per_gpu.max(axis=1).sum())


class Rank:
    """One rank: vLLM's state, its model, and what its policy was asked."""

    def __init__(self, root: Path, rank: int) -> None:
        self.rank, self.group, self.nodes = rank, None, 1
        self.import_vllm(root)
        self.three, self.four = Coordinator([0, 1, 2]), Coordinator([0, 1, 2, 3])
        self.eplb_of = {id(one): Coordinator(ranks) for one, ranks in ((self.three, [0, 1, 2]), (self.four, [0, 1, 2, 3]))}
        for one in self.eplb_of.values():
            one.__class__ = hollow("GroupCoordinator")  # only stateless ones insist on NCCL
        self.calls: list[tuple[Any, ...]] = []
        self.answers: list[torch.Tensor] = []

    def import_vllm(self, root: Path) -> None:
        config = SimpleNamespace(is_rocm=lambda: False, is_cuda_alike=lambda: False)
        given = {
            "vllm.config.parallel": {"EPLBPolicyOption": Literal["default"]},
            "vllm.config.utils": {"compute_hash_cached": lambda model: model.compute_hash()},
            "vllm.logger": {"init_logger": lambda name: Logger(logging.getLogger(name), {})},
            "vllm.envs": {"VLLM_PLUGINS": ["eplb_gap"]},
            "vllm.platforms": {"current_platform": config},
            "vllm.distributed.parallel_state": {
                "get_ep_group": lambda: self.group,
                "get_eplb_group": lambda: self.eplb_of[id(self.group)],
                "get_node_count": lambda: self.nodes,
                "in_the_same_node_as": lambda group, rank: [True] * group.size(),
                "is_local_first_rank": lambda: self.rank == 0,
            },
            "vllm.distributed.stateless_coordinator": {"StatelessGroupCoordinator": Coordinator},
            "vllm.distributed.nixl_utils": {"NixlWrapper": None},
            "vllm.distributed.utils": {"is_weak_contiguous": lambda tensor: True},
            "vllm.utils.torch_utils": {"PIN_MEMORY": False},
            "vllm.utils.gpu_sync_debug": {"gpu_sync_allowed": nullcontext},
        }
        self.compares = (root / "vllm/distributed/eplb/eplb_communicator.py").is_file()
        """Whether this version has a group of EPLB, in which ranks can compare their maps."""
        if not self.compares:
            del given["vllm.distributed.parallel_state"]["get_eplb_group"]  # as in the versions of that time
        shell(root, ["vllm.distributed.eplb.*", "vllm.plugins*"], ["vllm"], given)
        sys.path.append(str(root))  # its metadata, which say its version
        torch.Event = torch.Stream = torch.cuda.Event = torch.cuda.Stream = Idle
        torch.cuda.stream = lambda stream: nullcontext()
        torch.cuda.current_stream = torch.accelerator.current_stream = lambda *given, **named: Idle()
        torch.cuda.synchronize = torch.cuda.set_device = lambda *given: None
        torch.accelerator.set_stream = torch.accelerator.set_device_index = lambda *given: None
        torch.accelerator.current_accelerator = lambda *given: None

    def listen(self) -> None:
        """Keep what the policy that was registered is asked, and answers."""
        from vllm.distributed.eplb.policy import EPLB_POLICIES

        self.policy = EPLB_POLICIES["default"]
        asked = self.policy.rebalance_experts

        def rebalance_experts(*given: Any) -> Any:
            found = asked(*given)
            self.calls.append(tuple(one.clone() if isinstance(one, torch.Tensor) else one for one in given))
            self.answers.append(self.table(found).clone())
            return found

        self.policy.rebalance_experts = rebalance_experts

    def load_plugins(self) -> None:
        """Let vLLM find and register the plug-in."""
        from vllm.plugins import load_general_plugins

        load_general_plugins()

    def register(self) -> None:
        """Do again what vLLM does in every process when it finds the plug-in."""
        from eplb_gap.heuristics.plugins.vllm import register

        register()

    def whose(self, plans: int) -> list[str]:
        """Serve so many plans and return whether each was ours or as vLLM's own policy answers."""
        found = []
        for number in range(plans):
            self.serve(100 + number)
            own = self.table(self.policy.own.rebalance_experts(*self.calls[-1]))
            found.append("own" if self.answers[-1].equal(own) else "ours")
        return found

    def say(self, what: str) -> None:
        """Print what was driven, once all ranks have come so far."""
        dist.barrier(group=self.group.cpu_group)
        if self.rank == 0:
            print(f"  {what}", flush=True)

    @staticmethod
    def table(answer: Any) -> torch.Tensor:
        return answer[0] if isinstance(answer, tuple) else answer

    def start(self, use_async: bool) -> None:
        """Begin to serve a model on three ranks; the spare one has nothing yet."""
        from vllm.distributed.eplb.eplb_state import EplbState

        settings = SimpleNamespace(
            window_size=WINDOW,
            step_interval=INTERVAL,
            use_async=use_async,
            policy="default",
            communicator="torch_gloo",
            log_balancedness_interval=1,
            migration_batching_enabled=use_async,
            num_redundant_experts=3 * LOCAL - EXPERTS,
        )
        self.parallel = SimpleNamespace(
            eplb_config=settings, enable_elastic_ep=True, elastic_ep_max_dp_size=4, data_parallel_size=3, num_ubatches=0
        )
        self.config = SimpleNamespace(model="m", compute_hash=lambda: "m")
        self.group, self.nodes = self.three, 1
        self.model = Model(3, self.rank)
        self.state = EplbState(self.parallel, torch.device("cpu"))
        self.state.device_index = self.state.cuda_device_index = 0
        if self.rank != SPARE:
            self.state.add_model(self.model, self.config)
            self.state.start_async_loop()

    @property
    def inner(self) -> Any:
        return self.state.model_states["m"]

    @property
    def map(self) -> torch.Tensor:
        return self.inner.physical_to_logical_map

    def profile(self) -> None:
        """Let vLLM measure its memory, which asks for a map and must not adopt it."""
        if self.rank == SPARE:
            for _ in range(2):
                dist.barrier()  # of all processes, once for every weight
            return
        before = self.map.clone()
        self.state.step(is_dummy=True, is_profile=True)
        assert not self.calls[-1][0].any()
        assert self.map.equal(before)

    def serve(self, seed: int, asked: int | None = None) -> None:
        """Serve tokens until a plan has been made, after so many calls or one more, and all of its layers are in use."""
        generator = np.random.default_rng(seed)
        heat = generator.gamma(0.6, 1.0, (LAYERS, EXPERTS)) + 0.05
        asked = len(self.calls) if asked is None else asked
        for _ in range(STEPS):
            tokens = generator.poisson(40 * heat, (WORLD, LAYERS, EXPERTS))[self.rank]
            passed = self.inner.expert_load_pass
            passed.zero_()
            passed[:, : self.map.shape[1]] = spread(tokens, self.map.numpy())
            self.state.step()
            busy = torch.tensor([int(len(self.calls) == asked or self.inner.rebalanced)])
            dist.all_reduce(busy, group=self.group.device_group)
            if not busy.item():
                return
            time.sleep(0.002)  # the thread that moves weights gets its turn
        raise AssertionError("no plan was made and put in use")

    def join(self) -> None:
        """Add the spare rank, with -1 for its slots in the map, and let vLLM plan for four."""
        from vllm.distributed.eplb.eplb_state import EplbState

        state, slots = self.state, 4 * LOCAL
        if hasattr(state, "get_eep_state"):
            return self.join_as_older_versions_do()
        if self.rank != SPARE:
            state.drain_async()
        self.group, self.nodes = self.four, 2
        mapping = torch.full((LAYERS, slots), -1, dtype=torch.int64)
        if self.rank != SPARE:
            mapping[:, : 3 * LOCAL] = self.map
        dist.broadcast(mapping, 0)
        self.model.resize(4)
        self.parallel.data_parallel_size = 4
        if self.rank == SPARE:
            more = () if hasattr(state, "reconfigure_physical_expert_slots") else (3 * LOCAL,)
            self.state = EplbState.from_mapping(self.model, self.config, torch.device("cpu"), self.parallel, mapping, *more)
            self.state.device_index = self.state.cuda_device_index = 0
        elif hasattr(state, "reconfigure_physical_expert_slots"):
            self.model.resize(3)
            state.reconfigure_physical_expert_slots(self.config, slots)
            self.model.resize(4)
            state.update_communicator(self.config, state.create_communicator(self.config, self.eplb_of[id(self.four)]))
        else:
            from vllm.distributed.eplb.eplb_communicator import create_eplb_communicator

            inner = self.inner
            inner.physical_to_logical_map = mapping
            for name in ("expert_load_pass", "expert_load_window"):
                setattr(inner, name, torch.nn.functional.pad(getattr(inner, name), (0, LOCAL)))
            state.num_valid_physical_experts = 3 * LOCAL
            inner.communicator = create_eplb_communicator(
                self.eplb_of[id(self.four)], "torch_gloo", self.model.expert_weights, inner.expert_buffer
            )
        state, was_async, asked = self.state, self.state.is_async, len(self.calls)
        assert (self.map[:, 3 * LOCAL :] == -1).all()
        if hasattr(state, "reconfigure_physical_expert_slots"):
            state.rearrange(use_last_expert_load=True)  # those of rank 0; the thread plans and moves
        else:
            state.is_async = False
            state.rearrange()
            state.is_async, state.num_valid_physical_experts = was_async, slots
        state.expert_rearrangement_step = 0
        state.start_async_loop()
        if hasattr(state, "reconfigure_physical_expert_slots"):
            self.serve(15, asked)
        return None

    def join_as_older_versions_do(self) -> None:
        """The newcomer plans while its model is added, the others when they rearrange; their threads know three ranks only."""
        mapping = {rank: rank for rank in range(3)}
        self.group, self.nodes = self.four, 2
        sizes = torch.tensor([LOCAL], dtype=torch.int32)
        dist.broadcast(sizes, 0)
        if self.rank == SPARE:
            loads, tables, mapping = type(self.state).get_eep_state(self.parallel)
            self.model.resize(4)
            self.parallel.eplb_config.use_async = False
            self.state.add_model(self.model, self.config, loads[0], tables[0], mapping)
        else:
            dist.broadcast(sizes, 0, group=self.four.cpu_group)
            loads = self.state.rearrange(execute_shuffle=False)
            self.model.resize(4)
            self.state.is_async = False
            self.state.rearrange(global_expert_loads=loads, rank_mapping=mapping)
            self.state.expert_rearrangement_step = 0
            for name in ("expert_load_pass", "expert_load_window"):
                setattr(self.inner, name, torch.nn.functional.pad(getattr(self.inner, name), (0, LOCAL)))

    def lose(self) -> None:
        """Plan for the first two ranks of three, and send what they need, before the third goes."""
        self.state.rearrange(rank_mapping={0: 0, 1: 1, 2: -1})

    def check(self, what: str, ranks: int, before: torch.Tensor) -> None:
        """Compare the weights with the map and the maps of all ranks; say what was driven."""
        table = self.answers[-1]
        assert self.map[:, : ranks * LOCAL].equal(table), "the map in use is not the one that was planned"
        assert all(set(row.tolist()) == set(range(EXPERTS)) for row in table), "an expert is nowhere"
        if self.rank < ranks:
            for layer, weights in enumerate(self.model.expert_weights):
                mine = table[layer, self.rank * LOCAL : (self.rank + 1) * LOCAL] + 1000 * layer
                assert all(weight.equal(filled(mine, weight.shape[1])) for weight in weights), f"weights of layer {layer}"
        tables = [torch.empty_like(table) for _ in range(self.group.world_size)]
        dist.all_gather(tables, table, group=self.group.device_group)
        assert all(table.equal(one) for one in tables), "ranks have different maps"
        loads = self.calls[-1][0].numpy().astype(np.int64)
        if self.rank == 0:
            old, ours = balancedness(before, loads, before.shape[1] // LOCAL), balancedness(table, loads, ranks)
            try:
                theirs = f"{balancedness(self.table(self.policy.own.rebalance_experts(*self.calls[-1])), loads, ranks):.4f}"
            except Exception as error:  # 0.15.1 does not survive its own scale-up
                theirs = f"fails ({type(error).__name__})"
            other = "" if before.shape == table.shape else " on other ranks"
            shown = f"before {old:.4f}{other}, ours {ours:.4f}, vllm's own {theirs}"
            print(f"  {what}: {ranks} ranks agree, weights follow the map; balancedness {shown}", flush=True)


def spread(tokens: np.ndarray, table: np.ndarray) -> torch.Tensor:
    """Return the tokens of every slot, where the replicas of an expert share its tokens."""
    found = np.zeros(table.shape, dtype=np.int32)
    for layer, expert in np.ndindex(tokens.shape):
        slots = np.flatnonzero(table[layer] == expert)
        found[layer, slots] = tokens[layer, expert] // len(slots)
        found[layer, slots[: tokens[layer, expert] % len(slots)]] += 1
    return torch.from_numpy(found)
