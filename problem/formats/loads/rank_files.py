"""Recordings that are spread over a folder: one file per rank."""

from __future__ import annotations

import re
from pathlib import Path

from eplb_gap.problem.errors import InputError


def matching(folder: Path, pattern: re.Pattern[str]) -> list[tuple[re.Match[str], Path]]:
    """Return the files of a folder whose whole name matches, by name.

    Raises
    ------
    InputError
        If the folder cannot be read.
    """
    try:
        paths = sorted(folder.iterdir())
    except (OSError, ValueError) as error:
        raise InputError(f"folder {folder} cannot be read ({error})") from None
    return [(match, path) for path in paths if (match := pattern.fullmatch(path.name))]


def folder_of(path: Path) -> Path:
    """Return the folder that a path is or lies in."""
    return path if path.is_dir() else path.parent


def check_ranks(ranks: list[int], where: str) -> None:
    """Refuse ranks other than 0 to n - 1, each once: counts are summed over all of them."""
    needed = list(range(len(ranks)))
    for found, rank in zip(sorted(ranks), needed, strict=True):
        if found != rank:
            what = f"rank {found} twice" if found < rank else f"no file of rank {rank} but one of rank {found}"
            raise InputError(f"{where} has {what}; every rank from 0 on is needed once")
