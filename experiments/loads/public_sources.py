"""Where the public counts and routing come from, what their arrays hash to, and how a user's copy of the originals is read."""

from __future__ import annotations

import io
import itertools
import json
import os
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.experiments.loads import expert_fingerprints
from eplb_gap.experiments.loads.public_counts import COUNTS, DECODED, VARIABLE, counts_by_domain
from eplb_gap.experiments.loads.public_routing import ROUTED
from eplb_gap.experiments.loads.public_series import DECODE_SERIES
from eplb_gap.problem.atomic import write_atomically
from eplb_gap.problem.digest import array_sha256
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.containers import npz

DOMAINS = ("arxiv", "book", "c4", "github", "wikipedia")
MOST_BYTES = 1 << 20
"""Of an original file of counts; the real ones have a few thousand."""
THERE, MISSING, REFUSED = "there", "missing", "refused: "
"""States of a file; what is refused says why behind it."""
_INTEGERS = {"BININT", "BININT1", "BININT2", "LONG1"}


@dataclass(frozen=True)
class Source:
    """An array that rows are measured on.

    Parameters
    ----------
    model : str
    repository, revision, original : str
        Where it was published, and the path there.
    licence : str
    file, key : str
        Where it lies in the folder of public loads.
    shape : tuple of int
    sha256 : str
        Of the array as little-endian int64; rows carry the same.
    read : callable
        From the folder to the array.
    """

    model: str
    repository: str
    revision: str
    original: str
    licence: str
    file: str
    key: str
    shape: tuple[int, ...]
    sha256: str
    read: Callable[[Path], np.ndarray]

    def state(self, folder: Path) -> str:
        """Return :data:`THERE`, :data:`MISSING`, or :data:`REFUSED` and what the file holds instead."""
        if not (folder / self.file).exists():
            return MISSING
        try:
            self.check(self.read(folder), f"file {folder / self.file}: {self.key}")
        except InputError as error:
            return f"{REFUSED}{error}"
        return THERE

    def check(self, found: np.ndarray, what: str) -> None:
        """Raise an InputError if an array, which ``what`` names, is another one."""
        if found.dtype.kind not in "iu" or found.shape != self.shape:
            raise InputError(f"{what} has shape {found.shape} of {found.dtype}; integers of shape {self.shape} are needed")
        digest = array_sha256(found)
        if digest != self.sha256:
            raise InputError(f"{what} hashes to {digest[:16]}, not to {self.sha256[:16]}")

    def as_dict(self) -> dict[str, Any]:
        """Return what is known of it, for JSON."""
        names = ("model", "repository", "revision", "original", "licence", "file", "key", "sha256")
        return {name: getattr(self, name) for name in names} | {"shape": list(self.shape)}


def _array(file: str, key: str) -> Callable[[Path], np.ndarray]:
    def read(folder: Path) -> np.ndarray:
        with npz.open_archive(folder / file) as archive:
            return npz.read_entry(archive, key, folder / file)

    return read


_OLMOE = ("allenai/OLMoE", "357454f4f647385839c0ff6b99a688dc7cd9c13f")
_GPTOSS = (
    "AmanPriyanshu/GPT-OSS-MoE-ExpertFingerprinting",
    "72b368f60045221f21eeb65debb27d58de92e565",
    "data/*/*/*_examples.json, router_data",
    "Apache-2.0",
)
SOURCES = (
    Source(
        "OLMoE-1B-7B",
        *_OLMOE,
        "scripts/routing_output/olmoe/expert_counts/DOMAIN.pkl",
        "Apache-2.0",
        COUNTS,
        "olmoe_1b_7b_64",
        (5, 3, 64),
        "acd1eb85dc51c29051242d9e1d98fa335679795ba36bfc13a69dc8f2786650ac",
        lambda folder: counts_by_domain("OLMoE-1B-7B", folder),
    ),
    Source(
        "Mixtral-8x7B",
        *_OLMOE,
        "scripts/routing_output/mistral/expert_counts/DOMAIN.pkl",
        "Apache-2.0",
        COUNTS,
        "mixtral_8x7b_8",
        (5, 3, 8),
        "ce2d4309992b7cc9eb2871618ae75ca4e8080e2ae960c2282830802e60dde819",
        lambda folder: counts_by_domain("Mixtral-8x7B", folder),
    ),
    *(
        Source("GPT-OSS-20B", *_GPTOSS, file, key, shape, sha256, _array(file, key))
        for file, key, shape, sha256 in (
            (DECODED, "counts", (11, 24, 32), "50789ac1802a7190d58075489320293684b4448af0fd378e65e4d7884a33a301"),
            (DECODE_SERIES, "counts", (32, 24, 32), "d2992af40a3de39e0ac7518358c31a462bb2500824e3823595e8332c68dbc674"),
            (ROUTED, "routed_experts", (21577, 24, 4), "5a8bd1366130b6aab113146f644dcf4e3cd54f7f2f9bd1eff5f893c400139a9c"),
            (ROUTED, "offsets", (61,), "f545db6c915927390ebb775291af466b8876f7ab8062724f97dcdca74fc543a1"),
        )
    ),
)
"""Every array, in the order of the files."""


def read_counter_pickle(path: Path, experts: int) -> np.ndarray:
    """Return the counts of one domain from an original file, int64 [layers, experts], without unpickling anything.

    The file is a pickled list of counters, one a layer, from NumPy integers to numbers of tokens. Its opcodes are read as data:
    every string of eight bytes is an expert, the integer behind it its tokens, and the end of a dictionary the end of a layer.

    Raises
    ------
    InputError
        If the file is too large, no such pickle, or names an expert that there is none of, or one twice.
    """
    size = path.stat().st_size if path.exists() else -1
    if not 0 <= size <= MOST_BYTES:
        raise InputError(f"file {path}: {'missing' if size < 0 else f'{size} bytes'}; at most {MOST_BYTES} bytes are needed")
    layers: list[dict[int, int]] = [{}]
    expert: int | None = None
    try:
        for code, value, _ in pickletools.genops(path.read_bytes()):
            if code.name == "SHORT_BINBYTES" and isinstance(value, bytes) and len(value) == 8:
                expert = int.from_bytes(value, "little")
            elif code.name in _INTEGERS and expert is not None:
                if expert in layers[-1]:
                    raise InputError(f"file {path}: expert {expert} is there twice in layer {len(layers) - 1}")
                layers[-1][expert], expert = int(str(value)), None
            elif code.name in ("SETITEM", "SETITEMS"):
                layers.append({})
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"file {path}: no pickle of counters ({error})") from None
    found = np.zeros((len(layers) - 1, experts), np.int64)
    for layer, counts in enumerate(layers[:-1]):
        for expert, tokens in counts.items():
            if expert >= experts or not 0 <= tokens < 1 << 40:
                raise InputError(
                    f"file {path}: expert {expert} with {tokens} tokens in layer {layer}; there are {experts} experts"
                )
            found[layer, expert] = tokens
    return found


def check_given() -> None:
    """Raise an InputError if the environment names a folder that does not hold the very arrays that rows are published for."""
    folder = os.environ.get(VARIABLE)
    for source in SOURCES if folder is not None else ():
        state = source.state(Path(folder or ""))
        if state != THERE:
            found = f"{source.key} of {source.file} is missing" if state == MISSING else state.removeprefix(REFUSED)
            raise InputError(f"{VARIABLE} is {folder!r}: {found}; see eplb-gap public-loads")


def convert(originals: Path, folder: Path) -> list[Path]:
    """Write the files that studies read from a user's copy of the originals, and return them.

    Copies of the repositories, or of what is named in them as ``original``, lie anywhere below ``originals``. Instead of the
    requests of GPT-OSS their ready-made files are taken, by name.

    Raises
    ------
    InputError
        If a file is no such original, an array is another one than rows were measured on, or nothing is found; nothing is
        written then.
    """
    ready = _counters(originals) | (_requests(originals) or _ready_made(originals))
    if not ready:
        raise InputError(
            f"{originals} holds neither expert_counts of OLMoE and Mixtral nor data/*/*/*{expert_fingerprints.ENDING} of "
            f"GPT-OSS, nor {Path(DECODED).name} or its siblings"
        )
    for file, content in ready.items():
        write_atomically(folder / file, content)
    return [folder / file for file in ready]


def _counters(originals: Path) -> dict[str, bytes]:
    found: dict[str, np.ndarray] = {}
    for source, name in zip(SOURCES, ("olmoe", "mistral"), strict=False):
        places = sorted({path.parent for path in originals.rglob(f"{name}/expert_counts/*.pkl")})
        if places:
            found[source.key] = np.stack([read_counter_pickle(places[0] / f"{d}.pkl", source.shape[2]) for d in DOMAINS])
            source.check(found[source.key], f"{places[0]}: array of {source.model}")
    if len(found) == 1:
        raise InputError(f"{originals}: counts of one model alone; olmoe/expert_counts and mistral/expert_counts are needed")
    told = {"source": f"{SOURCES[0].repository} at {SOURCES[0].revision}", "domains": list(DOMAINS)}
    document = told | {key: counts.tolist() for key, counts in found.items()}
    return {COUNTS: json.dumps(document).encode()} if found else {}


def _requests(originals: Path) -> dict[str, bytes]:
    data = expert_fingerprints.data_folder(originals)
    if data is None:
        return {}
    read = [expert_fingerprints.read_request(path) for path in expert_fingerprints.selected_files(data)]
    ready = {}
    for file, named in expert_fingerprints.arrays(read).items():
        for source in SOURCES:
            if source.file == file:
                source.check(named[source.key], f"{data}: {source.key} of {Path(file).name}")
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **named)
        ready[file] = content.getvalue()
    return ready


def _ready_made(originals: Path) -> dict[str, bytes]:
    ready = {}
    for file in dict.fromkeys(source.file for source in SOURCES[2:]):
        for path in itertools.islice(sorted(originals.rglob(Path(file).name)), 1):
            for source in SOURCES:
                if source.file == file:
                    with npz.open_archive(path) as archive:
                        source.check(npz.read_entry(archive, source.key, path), f"file {path}: {source.key}")
            ready[file] = path.read_bytes()
    return ready
