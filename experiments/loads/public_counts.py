"""Expert counts of public models, from files that a user has; the project ships none of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eplb_gap.problem.files import parse_json
from eplb_gap.problem.formats.containers import npz
from eplb_gap.problem.loads import as_loads

VARIABLE = "EPLB_GAP_PUBLIC_LOADS"
"""Names the folder in the environment."""
COUNTS = "real_counts.json"
DECODED = "gptoss20b/gptoss20b_decode_counts_by_dataset.npz"
SOURCES = {
    "OLMoE-1B-7B": f"allenai/OLMoE, Apache-2.0, {COUNTS}",
    "Mixtral-8x7B": f"allenai/OLMoE, Apache-2.0, {COUNTS}",
    "GPT-OSS-20B": f"AmanPriyanshu/GPT-OSS-MoE-ExpertFingerprinting, Apache-2.0, {DECODED}",
}
"""Where the counts of every model come from, and the file that holds them in the folder."""
_KEYS = {"OLMoE-1B-7B": "olmoe_1b_7b_64", "Mixtral-8x7B": "mixtral_8x7b_8"}


def public_counts(model: str, folder: Path) -> np.ndarray:
    """Return the tokens per expert of a model: int64 [layers, experts].

    Parameters
    ----------
    model : str
        Key of :data:`SOURCES`. OLMoE's 15 layers of 64 experts and Mixtral's 15 of 8 are five domains by three layers; of
        GPT-OSS these are every third of its 24 layers of 32 experts, summed over eleven data sets.
    folder : Path

    Raises
    ------
    InputError
        If the file is missing or holds no such counts.
    """
    if model in _KEYS:
        by_domain = counts_by_domain(model, folder)
        return by_domain.reshape(-1, by_domain.shape[2])
    path = folder / DECODED
    with npz.open_archive(path) as archive:
        by_data_set = as_loads(npz.read_entry(archive, "counts", path), f"{path}, counts", 3)
    return np.asarray(by_data_set.sum(axis=0)[::3])


def counts_by_domain(model: str, folder: Path) -> np.ndarray:
    """Return the counts of OLMoE-1B-7B or Mixtral-8x7B by domain: int64 [domains, layers, experts].

    Raises
    ------
    InputError
        If the file is missing or holds no such counts.
    """
    path = folder / COUNTS
    document = parse_json(path)
    counts = document.get(_KEYS[model]) if isinstance(document, dict) else None
    return as_loads(counts, f"{path}, {_KEYS[model]}", 3)
