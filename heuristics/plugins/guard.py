"""What a plug-in says when it fails: one line at a time, and not the same at every call."""

from __future__ import annotations

import logging
import threading
import time

LOG = logging.getLogger("eplb_gap")
SECONDS = 60.0
"""At most one line of trouble in so many."""


class Complaints:
    """Lines of trouble, at most one in :data:`SECONDS`; what was held back is counted in the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Let the next line out."""
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
        why = error if isinstance(error, str) else f"{type(error).__name__}: {error}".rstrip(": ")
        more = f" ({held_back} more lines like this since the last)" if held_back else ""
        LOG.warning("eplb-gap: %s: %s%s", what, " ".join(why.split()), more)
        if isinstance(error, BaseException):
            LOG.debug("eplb-gap: where that came from", exc_info=error)


COMPLAINTS = Complaints()
