"""Small valid files of the formats, built to the descriptions: what tests read and the fuzzer damages.

Every format of loads has one here; a map is written by its own format, but for the formats that are read only.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem import LoadTrace
from eplb_gap.problem.routing.trace import RoutingTrace

STEPS, LAYERS, EXPERTS, RANKS = 4, 3, 4, 2
TOKENS, STEP_TOKENS, REQUESTS = 556, 256, (200, 300)
FEW_TOKENS = 5
"""Tokens of the samples of routing, those of a step, those of the first requests, and those of a request where few are enough."""
DENSE = 1
"""Layers without experts that come first in the model of the formats that count all layers."""
PHY2LOG = np.array([[0, 1, 2, 3, 0, 1], [3, 2, 1, 0, 3, 3], [0, 1, 2, 3, 2, 1]])


def sample_loads() -> np.ndarray:
    """Return the loads that every sample holds, int64 [steps, layers, experts]; each is even and at least 10."""
    return 2 * np.random.default_rng(7).integers(5, 50, (STEPS, LAYERS, EXPERTS))


def sample_routing() -> np.ndarray:
    """Return the experts that tokens chose of the samples of routing, uint8 [tokens, layers, 2]; dense layers have zeros."""
    random = np.random.default_rng(8)
    chosen = np.zeros((TOKENS, DENSE + LAYERS, 2), dtype=np.uint8)
    first = random.integers(0, EXPERTS, (TOKENS, LAYERS))
    chosen[:, DENSE:, 0] = first
    chosen[:, DENSE:, 1] = (first + random.integers(1, EXPERTS, first.shape)) % EXPERTS
    return chosen


def sample_expected(name: str) -> np.ndarray:
    """Return the loads that a sample is read as, int64 [steps, layers, experts]."""
    loads = sample_loads()
    if name.partition(":")[0] not in ("routed-experts", "routing"):
        return loads[:1] if name in ONE_STEP else loads
    if name in ONE_STEP:
        few = np.concatenate([request[:FEW_TOKENS, DENSE:] for request in _requests(loads)[:2]])
        return np.array([[np.bincount(row.ravel(), minlength=EXPERTS) for row in few.transpose(1, 0, 2)]])
    chosen = sample_routing()[: TOKENS // STEP_TOKENS * STEP_TOKENS, DENSE:]
    return np.array(
        [
            [np.bincount(row.ravel(), minlength=EXPERTS) for row in step.transpose(1, 0, 2)]
            for step in np.split(chosen, TOKENS // STEP_TOKENS)
        ]
    )


def write_samples(folder: Path, name: str) -> Path:
    """Write the sample of one format.

    Parameters
    ----------
    folder : Path
        Created; it should be empty.
    name : str
        Key of :data:`SAMPLES` or :data:`ROUTING_SAMPLES`; the part before ``:`` is the format.

    Returns
    -------
    Path
        What to read: a file, or the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {**SAMPLES, **ROUTING_SAMPLES}[name](sample_loads())
    for file, content in files.items():
        (folder / file).write_bytes(content)
    written = sorted(files)
    return folder / written[0] if len(written) == 1 else folder


def _trace(loads: np.ndarray) -> dict[str, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        LoadTrace(loads, {"window_steps": 1}).save(Path(folder) / "trace.npz")
        return {"trace.npz": (Path(folder) / "trace.npz").read_bytes()}


def _record_history(loads: np.ndarray) -> dict[str, bytes]:
    """One call that hands over all steps."""
    return _record(loads, 0)


def _record(loads: np.ndarray, alone: int = STEPS - 2) -> dict[str, bytes]:
    """A call for each of the first steps, then one that hands over a history of the others."""
    from eplb_gap.problem import Deployment
    from eplb_gap.problem.formats.containers.record_files import Call, call_path, write_call

    deployment, files = Deployment(EXPERTS, PHY2LOG.shape[1], 3), {}
    for number, counts in enumerate((*loads[:alone, None], loads[alone:]), 9):
        buffer = io.BytesIO()
        write_call(buffer, Call(counts, 1.7e9 + number, "vllm", "0.33.0", deployment, PHY2LOG, PHY2LOG, history=len(counts) > 1))
        files[call_path(Path(), number, LAYERS, EXPERTS).name] = buffer.getvalue()
    return files


def _sglang_stat(loads: np.ndarray) -> dict[str, bytes]:
    """Two unused rows of the circular buffer, and the dense layers, are zero."""
    counts = np.zeros((STEPS + 2, DENSE + LAYERS, EXPERTS), dtype=np.int32)
    counts[:STEPS, DENSE:] = loads
    content = {"rank": 0, "logical_count": _tensor(counts), "average_utilization_rate_over_window": 0.5}
    return {"expert_distribution_recorder_1719912345.125.pt": _torch(content)}


def _sglang_passes(loads: np.ndarray, per_token: bool) -> dict[str, bytes]:
    """Ranks share the tokens of a pass by parts that differ, replicas share an expert's likewise; clocks differ too."""
    table = np.vstack([np.resize(np.arange(EXPERTS), (DENSE, PHY2LOG.shape[1])), PHY2LOG])
    files = {}
    for rank in range(RANKS):
        records = []
        for step in range(STEPS):
            counts = np.zeros(table.shape, dtype=np.int32)
            counts[DENSE:] = _physical(loads[step] // 2 + (1 if rank else -1))
            record = {
                "forward_pass_id": 10 + step,
                "rank": rank,
                "gatherer_key": "primary",
                "global_physical_count": _tensor(counts),
            }
            if per_token:
                chosen = np.full((len(table), 2, 8), -1, dtype=np.int32)
                record |= {"input_ids": [1, 2], "positions": [0, 1], "extend_seq_lens": [2], "forward_mode": 1}
                record |= {"topk_ids_of_layer": _tensor(chosen), "misc_objects": []}
            records.append(record)
        content = {"records": records, "last_physical_to_logical_map": _tensor(table)}
        files[f"expert_distribution_recorder_1719912345.{rank + 1}_{rank}.pt"] = _torch(content)
    return files


def _physical(loads: np.ndarray) -> np.ndarray:
    """Give the first slot of an expert all its tokens but one for each other slot."""
    slots = np.ones_like(PHY2LOG)
    for layer, row in enumerate(PHY2LOG):
        for expert in range(EXPERTS):
            held = np.flatnonzero(row == expert)
            slots[layer, held[0]] = loads[layer, expert] - (held.size - 1)
    return slots


def _tensorrt_llm(loads: np.ndarray) -> dict[str, bytes]:
    from safetensors.numpy import save

    files = {"meta_info.json": json.dumps({"num_experts": EXPERTS, "num_experts_per_token": 2}).encode()}
    for rank in range(RANKS):
        part = loads // 2 + (1 if rank else -1)
        keys = np.ndindex(STEPS, LAYERS)
        files[f"rank{rank}.safetensors"] = save({f"{100 + s}_{DENSE + i}": part[s, i] for s, i in keys})
    files["rank0_raw.safetensors"] = b"token_selected_experts are not read"
    return files


def _vllm(loads: np.ndarray) -> dict[str, bytes]:
    table = PHY2LOG.tolist()
    snapshots = [
        {
            "step": 100 * (index + 1),
            "window_expert_load": _physical(step).tolist(),
            "latest_expert_load": _physical(step).tolist(),
            "physical_to_logical_map": table,
        }
        for index, step in enumerate(loads)
    ]
    shape: dict[str, Any] = {"world_size": 2, "num_moe_layers": LAYERS, "num_physical_experts": PHY2LOG.shape[1]}
    shape |= {"num_logical_experts": EXPERTS, "num_redundant_experts": 2, "window_size": 50}
    return {"model.json": json.dumps({**shape, "snapshots": snapshots}).encode()}


def _vllm_ascend(loads: np.ndarray) -> dict[str, bytes]:
    return {"loads.pt": _torch(_tensor(loads[0]))}


def _adrs(loads: np.ndarray) -> dict[str, bytes]:
    records = [{"logical_expert_load": step.tolist()} for step in loads]
    return {"expert-load.json": json.dumps({"description": "a sample", "load_history": records}).encode()}


def _rows(loads: np.ndarray) -> np.ndarray:
    index = np.indices(loads.shape).reshape(3, -1)
    return np.vstack([index[0], index[1] + DENSE, index[2], loads.ravel()])


def _csv(loads: np.ndarray) -> dict[str, bytes]:
    lines = ["window,layer,expert,tokens", *(",".join(map(str, row)) for row in _rows(loads).T.tolist())]
    return {"loads.csv": ("\n".join(lines) + "\n").encode()}


def _parquet(loads: np.ndarray) -> dict[str, bytes]:
    import polars

    buffer = io.BytesIO()
    polars.DataFrame(_rows(loads).T, schema=["window", "layer", "expert", "tokens"], orient="row").write_parquet(buffer)
    return {"loads.parquet": buffer.getvalue()}


def _table(loads: np.ndarray) -> list[dict[str, int]]:
    return [dict(zip(("window", "layer", "expert", "tokens"), row, strict=True)) for row in _rows(loads).T.tolist()]


def _csv_dataframe(loads: np.ndarray) -> dict[str, bytes]:
    """An index, floats, names with capitals and spaces, and a column that nobody needs."""
    rows = (
        f"{index},gpu-{layer},{window},{float(tokens)},{layer},{expert}"
        for index, (window, layer, expert, tokens) in enumerate(_rows(loads).T.tolist())
    )
    return {"loads.csv": "\n".join([",Host Name,Window,Tokens, Layer Id,expert-id", *rows]).encode()}


def _csv_sglang(loads: np.ndarray) -> dict[str, bytes]:
    rows = (f"{layer},{expert},{tokens}" for _, layer, expert, tokens in _rows(loads[:1]).T.tolist())
    return {"logical_count.csv": "\n".join(["layer_id,expert_id,count", *rows]).encode()}


def _json_lines(loads: np.ndarray) -> dict[str, bytes]:
    return {"loads.jsonl": "".join(json.dumps(row) + "\n" for row in _table(loads)).encode()}


def _logical_count(loads: np.ndarray) -> dict[str, bytes]:
    return {"counts.json": json.dumps({"logical_count": loads.tolist()}).encode()}


def _gzipped(build: Callable[[np.ndarray], dict[str, bytes]]) -> Callable[[np.ndarray], dict[str, bytes]]:
    return lambda loads: {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in build(loads).items()}


def _requests(loads: np.ndarray) -> list[np.ndarray]:
    """Return the requests of a sample, which are others for other loads than those of the samples."""
    shift = int((loads - sample_loads()).max())
    return np.split(np.roll(sample_routing(), shift, axis=0), np.cumsum(REQUESTS))


def _routed_requests(loads: np.ndarray) -> dict[str, bytes]:
    """A key for each request, and one that is not read."""
    entries = {f"routed_experts_{index}": request.astype(np.int32) for index, request in enumerate(_requests(loads))}
    return {"routing.npz": _archive({**entries, "offsets": np.cumsum((0, *REQUESTS))})}


def _routed_safetensors(loads: np.ndarray) -> dict[str, bytes]:
    from safetensors.numpy import save

    return {"routing.safetensors": save({"routed_experts": np.concatenate(_requests(loads))})}


def _routed_json(loads: np.ndarray) -> dict[str, bytes]:
    return {
        "routing.json": json.dumps(
            {"routed_experts": [request[:FEW_TOKENS].tolist() for request in _requests(loads)[:2]]}
        ).encode()
    }


def _routed_answers(loads: np.ndarray) -> dict[str, bytes]:
    """Answers of vLLM, one on each line; the last without routing, as of an aborted request."""
    answers = []
    for request in _requests(loads):
        buffer = io.BytesIO()
        np.save(buffer, request)
        text = base64.b64encode(buffer.getvalue()).decode()
        answers.append({"id": "cmpl-1", "choices": [{"index": 0, "text": "a", "routed_experts": text}]})
    answers.append({"id": "cmpl-2", "choices": [{"index": 0, "text": "", "routed_experts": None}]})
    return {"answers.jsonl": "".join(json.dumps(answer) + "\n" for answer in answers).encode()}


def _steps_of_routing(loads: np.ndarray) -> np.ndarray:
    """Return the tokens of the steps that are full, in the layers with experts, int64 [tokens, layers, 2]."""
    return np.concatenate(_requests(loads))[: TOKENS // STEP_TOKENS * STEP_TOKENS, DENSE:].astype(np.int64)


def _routing_trace(loads: np.ndarray) -> dict[str, bytes]:
    import tempfile

    chosen = _steps_of_routing(loads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "routing.npz"
        RoutingTrace(chosen, EXPERTS, step=np.arange(len(chosen)) // STEP_TOKENS).save(path)
        return {"routing.npz": path.read_bytes()}


def _routing_parquet(loads: np.ndarray) -> dict[str, bytes]:
    """A row for each token and layer, the last first."""
    import polars

    chosen = _steps_of_routing(loads)
    token, layer = (axis.ravel()[::-1] for axis in np.indices(chosen.shape[:2]))
    rows = {
        "layer": layer + DENSE,
        "token": token,
        "step": token // STEP_TOKENS,
        **{f"expert_{place}": chosen[token, layer, place] for place in range(chosen.shape[2])},
    }
    buffer = io.BytesIO()
    polars.DataFrame(rows).write_parquet(buffer)
    return {"routing.parquet": buffer.getvalue()}


def _routing_raw(loads: np.ndarray) -> dict[str, bytes]:
    """What TensorRT-LLM writes of tokens, shared by the ranks."""
    from safetensors.numpy import save

    steps = np.split(_steps_of_routing(loads).astype(np.int32), TOKENS // STEP_TOKENS)
    files = {"meta_info.json": json.dumps({"num_experts": EXPERTS, "num_experts_per_token": 2}).encode()}
    for rank, part in enumerate((slice(0, 100), slice(100, None))):
        tensors = {f"{100 + s}_{DENSE + i}": step[part, i].copy() for s, step in enumerate(steps) for i in range(LAYERS)}
        files[f"rank{rank}_raw.safetensors"] = save(tensors)
    return files


def _routing_per_token(loads: np.ndarray) -> dict[str, bytes]:
    """What SGLang's recorder dumps of tokens, shared by the ranks: slots, of experts with two either, in two of eight columns."""
    steps = np.split(_steps_of_routing(loads), TOKENS // STEP_TOKENS)
    table = np.vstack([np.resize(np.arange(EXPERTS), (DENSE, PHY2LOG.shape[1])), PHY2LOG])
    files = {}
    for rank, part in enumerate((slice(0, 100), slice(100, None))):
        records = []
        for number, step in enumerate(steps):
            slots = np.full((len(table), len(step[part]), 8), -1, dtype=np.int32)
            for layer, row in enumerate(PHY2LOG):
                first, last = np.argmax(row[:, None] == np.arange(EXPERTS), axis=0), np.zeros(EXPERTS, dtype=np.int64)
                last[row] = np.arange(row.size)
                chosen = step[part, layer]
                slots[DENSE + layer, :, :2] = np.where(np.arange(len(chosen))[:, None] % 2, first[chosen], last[chosen])
            counts = np.array([np.bincount(row[row >= 0], minlength=table.shape[1]) for row in slots])
            record = {"forward_pass_id": 10 + number, "rank": rank, "gatherer_key": "primary"}
            records.append({**record, "global_physical_count": _tensor(counts), "topk_ids_of_layer": _tensor(slots)})
        content = {"records": records, "last_physical_to_logical_map": _tensor(table)}
        files[f"expert_distribution_recorder_1719912345.{rank + 1}_{rank}.pt"] = _torch(content)
    return files


def _npy(loads: np.ndarray) -> dict[str, bytes]:
    buffer = io.BytesIO()
    np.save(buffer, loads)
    return {"loads.npy": buffer.getvalue()}


def _npz(loads: np.ndarray) -> dict[str, bytes]:
    return {"loads.npz": _archive({"loads": loads})}


def _omni_csv(loads: np.ndarray) -> dict[str, bytes]:
    """The counts are taken for units of 128 tokens."""
    files = {}
    for index, step in enumerate(loads):
        rows = [f"layer_{layer}," + ",".join(map(str, row)) for layer, row in enumerate(step.tolist())]
        header = "," + ",".join(f"ep_{expert}" for expert in range(EXPERTS))
        name = f"topk_ids_count_20250527_093605_decode_step{100 * index}to{100 * index + 99}.csv"
        files[name] = ("\n".join([header, *rows]) + "\n").encode()
    return files


def _omni_activations(loads: np.ndarray) -> dict[str, bytes]:
    files = {}
    for (step, counts), rank in ((pair, rank) for pair in enumerate(loads) for rank in range(RANKS)):
        part = np.split(counts, RANKS, axis=1)[rank]
        lines = ("\t".join(map(str, row)) + "\t\n" for row in part.tolist())
        files[f"activation_counts_recordstep_{step + 1}_rank_{rank}.txt"] = "".join(lines).encode()
    return files


def _megatron(loads: np.ndarray) -> dict[str, bytes]:
    files = {}
    for rank in range(RANKS):
        part = (loads // 2 + (1 if rank else -1)).transpose(1, 0, 2).astype(np.int32)
        entries = {
            "dump_version": np.asarray("mcore_ep_load_dump_v1"),
            "capture_id": np.asarray("capture"),
            "loads": part,
            "layer_numbers": np.arange(LAYERS, dtype=np.int32) + DENSE,
            "forward_counts": np.full(LAYERS, STEPS, dtype=np.int32),
            "ep_group_ranks": np.arange(RANKS, dtype=np.int32),
            "ep_rank": np.int32(rank),
            "ep_size": np.int32(RANKS),
            "global_rank": np.int32(rank),
        }
        files[f"mcore_ep_loads_rank{rank}_capture.npz"] = _archive(entries)
    return files


def _archive(entries: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **entries)
    return buffer.getvalue()


def _tensor(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(array.copy())


def _torch(content: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


SAMPLES: dict[str, Callable[[np.ndarray], dict[str, bytes]]] = {
    "eplb-gap": _trace,
    "eplb-gap-record": _record_history,
    "eplb-gap-record:calls": _record,
    "sglang-recorder": _sglang_stat,
    "sglang-recorder:per_pass": lambda loads: _sglang_passes(loads, per_token=False),
    "sglang-recorder:per_token": lambda loads: _sglang_passes(loads, per_token=True),
    "tensorrt-llm": _tensorrt_llm,
    "vllm-snapshots": _vllm,
    "vllm-ascend": _vllm_ascend,
    "adrs": _adrs,
    "csv": _csv,
    "csv:dataframe": _csv_dataframe,
    "csv:sglang": _csv_sglang,
    "csv:gzip": _gzipped(_csv),
    "json-table": _json_lines,
    "logical-count": _logical_count,
    "parquet": _parquet,
    "npy": _npy,
    "npz": _npz,
    "npz:unnamed": lambda loads: {"loads.npz": _archive({"arr_0": loads})},
    "omni-csv": _omni_csv,
    "omni-activations": _omni_activations,
    "megatron": _megatron,
    "routed-experts": _routed_requests,
    "routed-experts:safetensors": _routed_safetensors,
    "routed-experts:json": _routed_json,
    "routed-experts:answers": _routed_answers,
    "routing": _routing_trace,
}
"""Format, and variant where it has several -> what builds the files of the sample from the loads."""
ROUTING_SAMPLES: dict[str, Callable[[np.ndarray], dict[str, bytes]]] = {
    "eplb-gap-routing": _routing_trace,
    "parquet-routing": _routing_parquet,
    "tensorrt-llm-raw": _routing_raw,
    "sglang-tokens": _routing_per_token,
    "routed-experts": _routed_requests,
    "routed-experts:safetensors": _routed_safetensors,
    "routed-experts:json": _routed_json,
}
"""Format of routing, and variant -> what builds a sample."""
ONE_STEP = frozenset({"vllm-ascend", "csv:sglang", "routed-experts:json"})
"""Samples of one step: their formats hold no more, or it is enough."""
SLOW = frozenset({"parquet", "parquet-routing"})
"""Formats whose readers start a process for every file."""


def _certificate(slots: np.ndarray) -> bytes:
    return json.dumps({"schema": 1, "phy2log": slots.tolist()}).encode()


READ_ONLY_MAPS: dict[str, Callable[[np.ndarray], bytes]] = {"certificate": _certificate}
"""Format of maps that is not written -> what builds a file from the slots, int64 [layers, slots]."""
