"""No process of a driver outlives what started it, however that ends: ``ending.py SCRIPT ARGUMENTS`` becomes such a driver."""

from __future__ import annotations

import os
import sys

from eplb_gap.problem.child import end_with_parent


def follow_parent() -> None:
    """Let this process be killed when its parent ends, and every process that it forks when it ends itself."""

    def follow() -> None:
        end_with_parent(os.getppid())

    follow()
    os.register_at_fork(after_in_child=follow)


if __name__ == "__main__":
    follow_parent()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
