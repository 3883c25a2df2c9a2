"""What a plug-in says where it is registered: what it plans with, or why its host keeps its own policy."""

from __future__ import annotations

import logging
import os

from eplb_gap.heuristics.plugins import SETTINGS
from eplb_gap.heuristics.plugins.guard import COMPLAINTS

LOG = logging.getLogger("eplb_gap")


def say_kept(name: str, host: str, error: Exception, supported: str) -> None:
    """Log in one line that a host keeps its own policy: a warning only to those who set a variable of this project.

    Parameters
    ----------
    name, host : str
        What the host is called, and its distribution.
    error : Exception
        Why.
    supported : str
        Versions that were tested.
    """
    LOG.log(
        logging.WARNING if _is_asked() else logging.INFO,
        "eplb-gap: %s %s keeps its own EPLB: %s; the plug-in was tested with %s",
        name,
        _version(host),
        " ".join(str(error).split()),
        supported,
    )


def say_settings(host: str, otherwise: str) -> None:
    """Log what a plug-in plans with; with bad settings ``otherwise``, which says what happens then, and why."""
    if not _is_asked():
        LOG.info("eplb-gap plans for %s %s if EPLB is on: no variable is set, method fast", host, _version(host))
        return
    try:
        from eplb_gap.heuristics.plugins.settings import settings

        LOG.info("eplb-gap plans for %s %s if EPLB is on: %s", host, _version(host), settings().summary)
    except Exception as error:
        COMPLAINTS.say(otherwise, error)


def _is_asked() -> bool:
    return any(os.environ.get(name) for name in SETTINGS)


def _version(host: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(host)
    except PackageNotFoundError:
        return "(of unknown version)"
