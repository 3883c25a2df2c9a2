"""Routing of a public model, from a file that a user has; the project does not ship it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from eplb_gap.problem.digest import array_sha256
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.containers import npz
from eplb_gap.problem.routing.trace import RoutingTrace

MODEL = "GPT-OSS-20B"
ROUTED = "gptoss20b/gptoss20b_decode_routed_experts.npz"
EXPERTS = 32
SOURCE = f"AmanPriyanshu/GPT-OSS-MoE-ExpertFingerprinting, Apache-2.0, {ROUTED}"
PLANNED, OTHERS = "planned", "other requests"


@cache
def public_routing(folder: Path) -> RoutingTrace:
    """Return the generated tokens of 60 requests, [tokens, 24 layers, 4 of 32 experts], with the request of each.

    Raises
    ------
    InputError
        If the file is missing or holds no such routing.
    """
    path = folder / ROUTED
    with npz.open_archive(path) as archive:
        experts, offsets = (npz.read_entry(archive, key, path) for key in ("routed_experts", "offsets"))
    if experts.ndim != 3 or offsets.ndim != 1 or offsets.dtype.kind not in "iu" or (np.diff(offsets) <= 0).any():
        raise InputError(
            f"{path}: routed_experts has shape {experts.shape}; [tokens, layers, topk] with rising offsets is needed"
        )
    if offsets.size < 3 or offsets[0] != 0 or offsets[-1] != len(experts):
        raise InputError(f"{path}: offsets are {offsets[:1]} to {offsets[-1:]}; 0 to the {len(experts)} tokens are needed")
    request = np.repeat(np.arange(offsets.size - 1), np.diff(offsets))
    return RoutingTrace(experts, EXPERTS, request=request, provenance={"source": SOURCE, "sha256": array_sha256(experts)})


@cache
def public_parts(folder: Path) -> dict[str, RoutingTrace]:
    """Return the tokens of every second request, to plan on, and those of the others, to serve."""
    routing = public_routing(folder)
    assert routing.request is not None
    found = {}
    for name, odd in ((PLANNED, 0), (OTHERS, 1)):
        chosen = routing.request % 2 == odd
        request = routing.request[chosen]
        found[name] = RoutingTrace(routing.experts[chosen], EXPERTS, request=request, provenance=routing.provenance)
    return found


def in_lock_step(routing: RoutingTrace) -> RoutingTrace:
    """Return the tokens in the order in which requests that decode together would make them: step i has the i-th of each."""
    assert routing.request is not None
    starts = np.searchsorted(routing.request, routing.request)
    step = np.arange(routing.request.size) - starts
    order = np.argsort(step, kind="stable")
    return RoutingTrace(routing.experts[order], routing.num_experts, step=step[order], provenance=routing.provenance)
