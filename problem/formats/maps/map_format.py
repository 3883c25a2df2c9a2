"""What a format of maps says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.uneven_map import GpuLists

Container = Literal["JSON", "YAML", "npy", "torch"]
SUFFIXES: dict[str, Container] = {
    ".json": "JSON",
    ".yaml": "YAML",
    ".yml": "YAML",
    ".npy": "npy",
    ".pt": "torch",
    ".pth": "torch",
}


Render = Callable[[Placement, Deployment, list[int] | None, int | None], bytes]
"""Placement, deployment, layers of the loads and number of the model's layers -> content of a file."""


@dataclass(frozen=True)
class MapFormat:
    """A format of maps, declared at the end of its module and listed in :mod:`.maps`.

    Parameters
    ----------
    name : str
        What users call it.
    description : str
        What it is, in one line.
    containers : dict of str to callable
        The containers it is read from, the one that is written first, and for each ``recognise(content)``: whether the content
        of a file is of this format where none is told.
    read : callable
        ``read(content, where, deployment, layer_ids)``: the map; ``where`` begins its messages.
    render : callable, optional
        ``render(placement, deployment, layer_ids, num_model_layers)``: the bytes of a legal map; None where the format is read
        only.
    written : callable, optional
        ``written(content)``: whether a file of the container that is written holds what ``render`` makes and nothing else, as
        strictly as can be told without the deployment: what it says no of is not written over.
    general : bool, default False
        Whether it takes whatever has its container or kind: all other formats are asked first.
    """

    name: str
    description: str
    containers: Mapping[Container, Callable[[Any], bool]]
    read: Callable[[Any, str, Deployment, list[int] | None], Placement | GpuLists]
    render: Render | None = None
    written: Callable[[Any], bool] | None = None
    general: bool = False

    @property
    def container(self) -> Container:
        """The container that is written."""
        return next(iter(self.containers))

    @property
    def suffix(self) -> str:
        """The suffix of a file that is written."""
        return next(suffix for suffix, container in SUFFIXES.items() if container == self.container)


def anything(_content: Any) -> bool:
    """Recognise all content of a container."""
    return True


def nothing(_content: Any) -> bool:
    """Recognise no content: the format must be told."""
    return False


def has_key(*keys: str) -> Callable[[Any], bool]:
    """Recognise an object that has one of the keys."""
    return lambda content: isinstance(content, dict) and any(key in content for key in keys)
