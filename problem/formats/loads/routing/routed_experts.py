"""Return-routed-experts arrays of vLLM and SGLang: the experts that every token of a request chose, ``[tokens, layers, top-k]``.

Servers return one array with each request, of numbers of logical experts. Their layers are all of the model: of one without
experts all numbers are 0.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem import files
from eplb_gap.problem.errors import InputError, listed, reason, shown
from eplb_gap.problem.formats.containers import text_files
from eplb_gap.problem.formats.containers.npy_bytes import read_npy
from eplb_gap.problem.formats.containers.npz import MAX_ENTRY_BYTES, open_archive, read_entry, read_shape
from eplb_gap.problem.formats.containers.torch_arrays import load_torch, tensor_array
from eplb_gap.problem.formats.loads.load_format import ZIP, FileStart, LoadFormat
from eplb_gap.problem.formats.loads.recording import Progress, Recording
from eplb_gap.problem.formats.loads.routing.counting import MAX_EXPERTS, count
from eplb_gap.problem.npy import read_array

KEY = "routed_experts"
MAX_REQUESTS = 1 << 20
KEY_MARK = b'"routed_experts"'
HOLDERS = ("choices", "outputs", "meta_info")
"""Keys of a server's answer under which its routed experts can be."""
NO_SHAPE = (
    "is base64 of plain numbers without a shape, as SGLang returns them; save them with it: "
    "np.frombuffer(base64.b64decode(text), np.int32).reshape(-1, layers, topk)"
)


def read(path: Path, _progress: Progress | None) -> Recording:
    """Read routed experts as loads of steps of :data:`.counting.STEP_TOKENS` tokens.

    Parameters
    ----------
    path : Path
        NPY of one array; NPZ, safetensors or torch file with the key ``routed_experts``, or with nothing but such arrays, one for
        each request; JSON, or JSON lines, of servers' answers or of objects with that key, as lists or as vLLM's base64. A
        request is ``[tokens, layers, top-k]``, or several are padded to ``[requests, tokens, layers, top-k]`` with -1.

    Raises
    ------
    InputError
        If there are none, they differ in layers or choices, a token chose an expert twice, or a number is no expert.
    """
    start = text_files.read_start(path, MAX_ENTRY_BYTES, 1 << 12)
    if start.startswith(b"\x93NUMPY"):
        return _of_arrays(path, [("the array", read_npy(path, MAX_ENTRY_BYTES))])
    if start.startswith(ZIP):
        if FileStart(path, start).is_torch:
            return _of_arrays(path, _torch_arrays(path))
        return _of_archive(path)
    if start[8:9] == b"{":
        return _of_safetensors(path)
    return _of_arrays(path, _json_arrays(path))


def _of_arrays(path: Path, arrays: list[tuple[str, np.ndarray]]) -> Recording:
    flat = [(inside, part) for inside, array in arrays for part in _requests(array)]
    return count(path, iter(flat), [part.shape for _, part in flat], {})


def _requests(array: np.ndarray) -> list[np.ndarray]:
    """Return the requests of an array: one, or those along a first of four axes."""
    return list(array) if array.ndim == 4 else [array]


def _of_archive(path: Path) -> Recording:
    with open_archive(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        chosen = _chosen(names, path)
        shapes = [read_shape(archive, name, path) for name in chosen]

        def parts() -> Iterator[tuple[str, np.ndarray]]:
            for name in chosen:
                for part in _requests(read_entry(archive, name, path)):
                    yield f"key {name!r}", part

        return count(path, parts(), _flat(shapes, path), _ignored(names, chosen))


def _of_safetensors(path: Path) -> Recording:
    from safetensors import SafetensorError, safe_open

    files.size(path, files.MAX_ARRAY_BYTES)
    try:
        with safe_open(path, framework="numpy") as tensors:
            names = list(tensors.keys())
            chosen = _chosen(names, path)
            shapes = [tuple(tensors.get_slice(name).get_shape()) for name in chosen]

            def parts() -> Iterator[tuple[str, np.ndarray]]:
                for name in chosen:
                    for part in _requests(tensors.get_tensor(name)):
                        yield f"key {name!r}", part

            return count(path, parts(), _flat(shapes, path), _ignored(names, chosen))
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"file {path} is truncated or no safetensors file of integers ({reason(error)})") from None


def _chosen(names: list[str], path: Path) -> list[str]:
    """Return the keys that are read: that of the name, those that begin with it, or all where there is none."""
    named = [name for name in names if name == KEY] or [name for name in names if name.startswith(KEY)]
    if not names:
        raise InputError(f"file {path} holds no array; the key {KEY!r} is needed")
    if len(names) > MAX_REQUESTS:
        raise InputError(f"file {path} has {len(names)} keys; at most {MAX_REQUESTS} are read")
    return named or names


def _ignored(names: list[str], chosen: list[str]) -> dict[str, Any]:
    ignored = [name for name in names if name not in set(chosen)]
    return {"ignored_keys": listed(ignored)} if ignored else {}


def _flat(shapes: list[tuple[int, ...]], path: Path) -> list[tuple[int, ...]]:
    """Return the shapes of requests, of arrays some of which hold several."""
    found: list[tuple[int, ...]] = []
    for shape in shapes:
        several = shape[0] if len(shape) == 4 else 1
        if len(found) + several > MAX_REQUESTS:
            raise InputError(f"file {path} has more than {MAX_REQUESTS} requests; no more are read")
        found += [shape[1:]] * several if len(shape) == 4 else [shape]
    return found


def _torch_arrays(path: Path) -> list[tuple[str, np.ndarray]]:
    content = load_torch(path)
    where = f"file {path}"
    if isinstance(content, dict):
        if KEY not in content:
            raise InputError(f"{where} has the keys {listed([str(key) for key in content])}; the key {KEY!r} is needed")
        content = content[KEY]
    held = list(content) if isinstance(content, list | tuple) else [content]
    if not held or len(held) > MAX_REQUESTS:
        raise InputError(f"{where} holds {len(held)} requests; 1 to {MAX_REQUESTS} are read")
    return [
        (f"request {index}", tensor_array(tensor, f"{where}: request {index}", 4 if getattr(tensor, "ndim", 3) == 4 else 3))
        for index, tensor in enumerate(held)
    ]


def _json_arrays(path: Path) -> list[tuple[str, np.ndarray]]:
    """Return the arrays of a JSON document, or of those on the lines of a file."""
    text = text_files.read_text(path, files.MAX_JSON_BYTES)
    lines = text.strip().split("\n")
    try:
        several = len(lines) > 1 and lines[0].rstrip().endswith("}")
        document = [files.strict_json(line) for line in lines if line.strip()] if several else files.strict_json(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"file {path} is no JSON ({error})") from None
    found: list[tuple[str, np.ndarray]] = []
    for value in _values(document):
        if len(found) == MAX_REQUESTS:
            raise InputError(f"file {path} has more than {MAX_REQUESTS} requests; no more are read")
        inside = f"request {len(found)}"
        found += [(inside, array) for array in _arrays(value, f"file {path}: {inside}")]
    if not found:
        said = f"the keys {listed(list(document))}" if isinstance(document, dict) else f"a {type(document).__name__}"
        raise InputError(f"file {path} has {said}; the key {KEY!r} with [tokens, layers, top-k] is needed")
    return found


def _values(document: Any) -> Iterator[Any]:
    """Yield what servers' answers have under the key; requests that have nothing there are passed over."""
    for entry in document if isinstance(document, list) else [document]:
        if not isinstance(entry, dict):
            continue
        if entry.get(KEY) is not None:
            yield entry[KEY]
        for holder in HOLDERS:
            if holder in entry:
                yield from _values(entry[holder])


def _arrays(value: Any, where: str) -> list[np.ndarray]:
    if isinstance(value, str):
        return [_decoded(value, where)]
    depth, inner = 0, value
    while isinstance(inner, list) and inner and depth < 5:
        inner, depth = inner[0], depth + 1
    if depth == 4:  # one list for each request, of as many tokens as it has
        return [_array(request, where) for request in value]
    return [_array(value, where)]


def _array(value: Any, where: str) -> np.ndarray:
    """Return nested lists of integers as an array; a list is judged before NumPy sees it, which would take strings."""
    needed = "[tokens, layers, top-k], lists of whole numbers, is needed"
    rows: Any = [value]
    shape: list[int] = []
    for _ in range(3):
        if not all(isinstance(row, list) for row in rows):
            raise InputError(f"{where} is {shown(value)}; {needed}")
        sizes = {len(row) for row in rows}
        if len(sizes) != 1 or 0 in sizes:
            raise InputError(f"{where} is ragged or empty; {needed}")
        shape.append(sizes.pop())
        rows = [entry for row in rows for entry in row]
    wrong = next((entry for entry in rows if type(entry) is not int or not -MAX_EXPERTS < entry < 2 * MAX_EXPERTS), None)
    if wrong is not None or None in rows:
        raise InputError(f"{where} holds {shown(wrong)}; {needed}")
    return np.array(rows, dtype=np.int32).reshape(shape)


def _decoded(text: str, where: str) -> np.ndarray:
    """Return the array of a base64 text of an npy file."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{where} is text that is no base64 ({reason(error)}); base64 of an npy file is needed") from None
    if not content.startswith(b"\x93NUMPY"):
        raise InputError(f"{where} {NO_SHAPE}")
    return read_array(io.BytesIO(content), len(content), where)


def is_routing(start: FileStart) -> bool:
    """Return whether a file has the key."""
    if start.is_torch:
        return isinstance(start.torch, dict) and KEY in start.torch
    if start.content[8:9] == b"{":  # safetensors
        return KEY_MARK[:-1] in start.content
    if start.text.startswith((b"{", b"[")):
        return KEY in start.keys or KEY in start.record_keys or KEY_MARK in start.content
    return any(name.startswith(KEY) for name in start.entries)


FORMAT = LoadFormat(
    "routed-experts",
    f"experts that tokens chose (return_routed_experts), [tokens, layers, top-k], under the key {KEY}",
    read,
    recognise=is_routing,
)
