"""Return-routed-experts arrays of vLLM and SGLang: the experts that every token of a request chose, ``[tokens, layers, top-k]``.

Servers return one array with each request, of numbers of logical experts. Their layers are all of the model: of one without
experts all numbers are 0.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem import files
from eplb_gap.problem.arrays.npy import read_array, read_header
from eplb_gap.problem.errors import InputError, listed, reason, shown
from eplb_gap.problem.formats.containers import text_files
from eplb_gap.problem.formats.containers.npz import MAX_ENTRY_BYTES, open_archive, read_entry, read_shape
from eplb_gap.problem.formats.containers.torch_arrays import load_torch, tensor_array
from eplb_gap.problem.formats.loads.load_format import ZIP, FileStart
from eplb_gap.problem.formats.routing.assembled import assembled
from eplb_gap.problem.formats.routing.routing_format import RoutingFormat
from eplb_gap.problem.formats.routing.rows import MAX_EXPERTS, PIECE_CHOICES, Piece, Routed, requests_of, streamed
from eplb_gap.problem.routing.trace import RoutingTrace

KEY = "routed_experts"
MAX_REQUESTS = 1 << 20
PROMPT_KEY = "prompt_routed_experts"
KEYS = (KEY, PROMPT_KEY)
MARKS = (b'"routed_experts"', b'"prompt_routed_experts"')
OFFSETS = "offsets"
HOLDERS = ("choices", "outputs", "meta_info")
"""Keys of a server's answer under which its routed experts can be."""
NO_SHAPE = (
    "is base64 of plain numbers without a shape, as SGLang returns them; save them with it: "
    "np.frombuffer(base64.b64decode(text), np.int32).reshape(-1, layers, topk)"
)


@contextmanager
def opened(path: Path) -> Iterator[Routed]:
    """Open a file of routed experts.

    Parameters
    ----------
    path : Path
        NPY of one array; NPZ, safetensors or torch file with the key ``routed_experts`` or ``prompt_routed_experts``, or with
        nothing but such arrays, one for each request; JSON, or JSON lines, of servers' answers or of objects with that key, as
        lists or as vLLM's base64. A request is ``[tokens, layers, top-k]``, or several are padded to ``[requests, tokens,
        layers, top-k]`` with -1. ``offsets`` of an archive of one array are the first tokens of its requests, and their end.

    Raises
    ------
    InputError
        If there are none, or what is there is no such array.
    """
    start = text_files.read_start(path, MAX_ENTRY_BYTES, 1 << 12)
    if start.startswith(b"\x93NUMPY"):
        with _npy(path) as routed:
            yield routed
    elif start.startswith(ZIP) and not FileStart(path, start).is_torch:
        with _archive(path) as routed:
            yield routed
    elif start[8:9] == b"{":
        with _safetensors(path) as routed:
            yield routed
    else:
        arrays = _torch_arrays(path) if start.startswith(ZIP) else _json_arrays(path)
        pieces = [piece for inside, array in arrays for piece in requests_of(inside, array)]
        yield Routed(f"file {path}", [part.shape for _, _, part in pieces], pieces, blank_zeros=True)


def read(path: Path, experts: int | None) -> RoutingTrace:
    """Read routed experts as a trace; errors as of :func:`opened` and :func:`.assembled.assembled`."""
    with opened(path) as routed:
        return assembled(routed, FORMAT.name, path.name, experts)


@contextmanager
def _npy(path: Path) -> Iterator[Routed]:
    where, inside = f"file {path}", "the array"
    size = files.size(path, MAX_ENTRY_BYTES)
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = read_header(file, where)
            if _streams(shape, fortran, dtype):
                _check_size(shape, dtype, size - file.tell(), where)
                yield Routed(where, _flat([shape], path), streamed(file, shape, dtype, inside, where), blank_zeros=True)
                return
            file.seek(0)
            array = read_array(file, MAX_ENTRY_BYTES, where)
    except OSError as error:
        raise InputError(f"file {path} cannot be read ({error.strerror})") from None
    yield Routed(where, _flat([array.shape], path), requests_of(inside, array), blank_zeros=True)


def _streams(shape: tuple[int, ...], fortran: bool, dtype: np.dtype) -> bool:
    return not fortran and dtype.kind in "iu" and len(shape) in (3, 4) and min(shape) > 0


def _check_size(shape: tuple[int, ...], dtype: np.dtype, held: int, where: str) -> None:
    if math.prod(shape) * dtype.itemsize != held:
        raise InputError(f"{where} claims shape {shape} of {dtype}, which its {held} bytes do not hold")


@contextmanager
def _archive(path: Path) -> Iterator[Routed]:
    with open_archive(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        chosen = _chosen(names, path)
        offsets = OFFSETS if OFFSETS in names and chosen in ([KEY], [PROMPT_KEY]) else None
        shapes = [read_shape(archive, name, path) for name in chosen]

        def pieces() -> Iterator[Piece]:
            for name in chosen:
                inside = f"key {name!r}"
                with archive.open(f"{name}.npy") as member:
                    shape, fortran, dtype = read_header(member, f"file {path}: {inside}")
                    if _streams(shape, fortran, dtype):
                        yield from streamed(member, shape, dtype, inside, f"file {path}")
                        continue
                yield from requests_of(inside, read_entry(archive, name, path))

        columns = _one_request(chosen, shapes)
        if offsets is not None:
            columns = _requests(read_entry(archive, offsets, path), shapes[0], f"file {path}: key {offsets!r}")
        read = {*chosen, *([] if offsets is None else [offsets])}
        yield Routed(
            f"file {path}", _flat(shapes, path), pieces(), columns=columns, blank_zeros=True, notes=_ignored(names, read)
        )


def _one_request(keys: list[str], shapes: list[tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return the request of every token where the keys are those of a prompt and its answer."""
    if keys != [PROMPT_KEY, KEY] or {len(shape) for shape in shapes} != {3}:
        return {}
    return {"request": np.zeros(sum(shape[0] for shape in shapes), dtype=np.int64)}


def _requests(offsets: np.ndarray, shape: tuple[int, ...], where: str) -> dict[str, np.ndarray]:
    """Return the request of every token, of the first tokens of all requests and their end."""
    rises = offsets.ndim == 1 and offsets.size > 1 and offsets.dtype.kind in "iu"
    if len(shape) != 3 or not rises or offsets[0] != 0 or offsets[-1] != shape[0] or (offsets[1:] < offsets[:-1]).any():
        raise InputError(
            f"{where} is {offsets.dtype} of shape {offsets.shape}; first tokens of requests, from 0 on and never falling, "
            f"and behind them the number of tokens, {shape[0]}, are needed"
        )
    return {"request": np.repeat(np.arange(offsets.size - 1), np.asarray(np.diff(offsets), dtype=np.int64))}


@contextmanager
def _safetensors(path: Path) -> Iterator[Routed]:
    from safetensors import SafetensorError, safe_open

    files.size(path, files.MAX_ARRAY_BYTES)
    try:
        with safe_open(path, framework="numpy") as tensors:
            names = list(tensors.keys())
            chosen = _chosen(names, path)
            views = {name: tensors.get_slice(name) for name in chosen}
            shapes = {name: tuple(view.get_shape()) for name, view in views.items()}

            def pieces() -> Iterator[Piece]:
                for name in chosen:
                    rows, shape = views[name], shapes[name]
                    if len(shape) != 3:
                        yield from requests_of(f"key {name!r}", tensors.get_tensor(name))
                        continue
                    most = max(1, PIECE_CHOICES // math.prod(shape[1:]))
                    for start in range(0, shape[0], most):
                        yield f"key {name!r}", start, np.asarray(rows[start : min(start + most, shape[0])])

            flat, notes = _flat(list(shapes.values()), path), _ignored(names, set(chosen))
            columns = _one_request(chosen, list(shapes.values()))
            yield Routed(f"file {path}", flat, pieces(), columns=columns, blank_zeros=True, notes=notes)
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"file {path} is truncated or no safetensors file of integers ({reason(error)})") from None


def _chosen(names: list[str], path: Path) -> list[str]:
    """Return the keys that are read: those of the names, those that begin with them, or all where there is none."""
    if not names:
        raise InputError(f"file {path} holds no array; the key {KEY!r} is needed")
    if len(names) > MAX_REQUESTS:
        raise InputError(f"file {path} has {len(names)} keys; at most {MAX_REQUESTS} are read")
    if KEY in names and PROMPT_KEY in names:  # of one request, whose prompt came first
        return [PROMPT_KEY, KEY]
    for key in KEYS:
        if named := [name for name in names if name == key] or [name for name in names if name.startswith(key)]:
            return named
    return names


def _ignored(names: list[str], read: set[str]) -> dict[str, Any]:
    ignored = [name for name in names if name not in read]
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
        return any(mark[:-1] in start.content for mark in MARKS)
    if start.text.startswith((b"{", b"[")):
        return KEY in start.keys or KEY in start.record_keys or MARKS[0] in start.content
    return any(name.startswith(KEYS) for name in start.entries)


FORMAT = RoutingFormat(
    "routed-experts",
    f"experts that tokens chose (return_routed_experts), [tokens, layers, top-k], under the key {KEY}",
    read,
    recognise=is_routing,
)
