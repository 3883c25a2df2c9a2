"""What stands between a plug-in and its host: an error of ours is a log line, and the host's own policy answers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

LOG = logging.getLogger("eplb_gap")
SECONDS = 60.0
"""At most one line of trouble in so many."""
T = TypeVar("T")


class Complaints:
    """Lines of trouble, at most one in :data:`SECONDS`; what was held back is counted in the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = float("-inf")
        self._held_back = 0

    def say(self, what: str, error: BaseException | str) -> None:
        """Log one line, unless one was logged a moment ago; the traceback is for level DEBUG.

        Parameters
        ----------
        what : str
            What happens now, as "vLLM's own policy answers".
        error : BaseException or str
            Why.
        """
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                self._held_back += 1
                return
            self._next, held_back, self._held_back = now + SECONDS, self._held_back, 0
        why = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        more = f" ({held_back} more lines like this since the last)" if held_back else ""
        LOG.warning("eplb-gap: %s: %s%s", what, " ".join(why.split()), more)
        if isinstance(error, BaseException):
            LOG.debug("eplb-gap: where that came from", exc_info=error)


COMPLAINTS = Complaints()


def guarded(ours: Callable[[], T], own: Callable[[], T], what: str) -> T:
    """Return what a plug-in answers, or where that fails, in whatever way, what its host would without it.

    Parameters
    ----------
    ours, own : callable
        Without arguments. An error of ``own`` is the host's, and is raised.
    what : str
        What the log says happens then, as "vLLM's own policy answers".
    """
    try:
        return ours()
    except Exception as error:
        COMPLAINTS.say(what, error)
        return own()
