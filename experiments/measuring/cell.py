"""A cell: one measurement of a grid, its limits, and the row that stands for it where it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.code_digest import digest
from eplb_gap.experiments.measuring.rows import Fields, Key, Row


@dataclass(frozen=True)
class Cell:
    """One measurement: a module-level function, its arguments, its limits, and the key of the row it makes.

    Parameters
    ----------
    suite, instance, method : str
    seed : int
    function : callable
        ``function(**arguments)`` returns the row's own fields as a dict that JSON can hold; runs in a process of its own.
    arguments : dict
        Picklable.
    seconds : float
        Wall time after which the cell is killed.
    memory_bytes : int
        Private memory, bytes, that a process of the cell may write to; enforced on Linux.
    """

    suite: str
    instance: str
    method: str
    function: Callable[..., Fields]
    arguments: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    seconds: float = 3600.0
    memory_bytes: int = 8 << 30

    @property
    def key(self) -> Key:
        """Key of the cell's row."""
        return Key(self.suite, self.instance, self.method, self.seed)

    @property
    def code(self) -> str:
        """Digest of the function's code and of the arguments, as this process has them."""
        return digest(self.function, self.arguments)


def failure_row(cell: Cell, status: str) -> Row:
    """Return the row of a cell that gave no result; it does not count as done, so that the next run tries the cell again."""
    return Row(
        cell.key._asdict()
        | {
            "kind": rows.FAILURE,
            "status": status,
            "hash": "",
            "parameters": {"seconds": cell.seconds, "memory_bytes": cell.memory_bytes},
            "code": cell.code,
            "timestamp": rows.now(),
        }
        | rows.environment()
    )
