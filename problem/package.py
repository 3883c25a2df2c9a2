"""Where the package lies, for the processes that this one starts."""

from __future__ import annotations

import os
from pathlib import Path


def package_folder() -> str:
    """Return the folder that holds the package ``eplb_gap``: a checkout or ``site-packages``.

    A child process needs it first in ``PYTHONPATH``. The path is taken as it was imported and not resolved: in a checkout the
    rooms are links, and behind a link the levels of folders are others.
    """
    return os.fspath(Path(__file__).absolute().parents[2])
