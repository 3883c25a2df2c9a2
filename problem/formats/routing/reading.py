"""Routing files: which formats there are, and reading one as a trace."""

from __future__ import annotations

import os
from pathlib import Path

from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.formats.containers import text_files
from eplb_gap.problem.formats.loads.load_format import FileStart
from eplb_gap.problem.formats.routing import parquet_rows, routed_experts, sglang_tokens, tensorrt_llm_raw, trace_file
from eplb_gap.problem.formats.routing.routing_format import RoutingFormat
from eplb_gap.problem.formats.routing.rows import MAX_EXPERTS
from eplb_gap.problem.routing.trace import RoutingTrace

FORMATS: dict[str, RoutingFormat] = {
    format.name: format
    for format in (trace_file.FORMAT, tensorrt_llm_raw.FORMAT, sglang_tokens.FORMAT, parquet_rows.FORMAT, routed_experts.FORMAT)
}
"""The records of all formats by name, in the order in which they are asked whether a file is theirs."""
MAX_BYTES = 1 << 40
START_BYTES = 1 << 16
NPY = b"\x93NUMPY"


def read_routing(path: str | os.PathLike[str], format: str | None = None, *, experts: int | None = None) -> RoutingTrace:
    """Read which experts every token went to.

    Parameters
    ----------
    path : path
        A file; where every rank has its own, also the folder of them. A plain array ``[tokens, layers, top-k]`` without a name is
        read as well.
    format : str, optional
        One of :data:`FORMATS`; recognised by default.
    experts : int, optional
        Logical experts of a layer, where the file does not tell. Without it they are as many as the largest number that was
        chosen says, and the provenance says so under ``experts``.

    Returns
    -------
    RoutingTrace
        Without padding and layers that have no experts. The provenance has ``format``, ``file``, ``layer_ids`` (of each layer in
        the model), ``dropped_layers``, ``tokens_without_routing`` and ``notices``, lines that a user is to see. A trace of this
        package keeps the provenance it has.

    Raises
    ------
    InputError
        Naming the file, the token and layer, what was found and what is needed: a row with a repeated or unknown expert, or -1
        beside others; layers that differ in their tokens; steps that fall; no token; no file of a known format.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from eplb_gap import read_routing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/routing.npz", routed_experts=[[[0, 2]], [[2, 1]], [[-1, -1]]])  # three tokens, one is padding
    ...     routing = read_routing(f"{folder}/routing.npz", experts=4)
    >>> routing.loads().tolist(), routing.provenance["tokens_without_routing"]
    ([[1, 1, 2, 0]], 1)
    """
    given = Path(path)
    if format is not None and format not in FORMATS:
        raise InputError(f"format is {format!r}; the routing formats are {', '.join(FORMATS)}")
    if experts is not None and (type(experts) is not int or not 1 <= experts <= MAX_EXPERTS):
        raise InputError(f"experts is {shown(experts)}; 1 to {MAX_EXPERTS} logical experts are needed")
    try:
        given.stat()
    except FileNotFoundError:
        raise InputError(f"file {given} does not exist") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{str(given)!r:.200} cannot be read ({error})") from None
    chosen = FORMATS[format] if format is not None else _recognised(given)
    if given.is_dir() and chosen.names is None:
        raise InputError(f"{given} is a folder; format {chosen.name!r} needs a file")
    return chosen.read(given, experts)


def recognised(start: FileStart) -> RoutingFormat | None:
    """Return the format of a file of which the start was read, or None."""
    return next((format for format in FORMATS.values() if format.recognise(start)), None)


def _recognised(path: Path) -> RoutingFormat:
    known = f"the routing formats are {', '.join(FORMATS)}"
    if path.is_dir():
        names = [file.name for file in path.iterdir()]
        found = [format for format in FORMATS.values() if format.names is not None and any(map(format.names.fullmatch, names))]
        if len(found) != 1:
            raise InputError(f"folder {path} holds no routing of one known format; {known}")
        return found[0]
    with text_files.opened(path, MAX_BYTES) as (file, _):
        start = FileStart(path, file.read(START_BYTES))
    if (format := recognised(start)) is not None:
        return format
    if {"head.npy", "loads.npy"} <= set(start.entries):
        raise InputError(f"file {path} is a trace of loads, which do not tell where single tokens went; {known}")
    if start.content.startswith(NPY) or len(start.entries) == 1:
        return routed_experts.FORMAT
    raise InputError(f"file {path} holds no routing of a known format; {known}")
