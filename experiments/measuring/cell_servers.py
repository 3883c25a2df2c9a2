"""Servers of cells as the runner sees them: as many as are needed at once, replaced where one dies, stopped together."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import threading

from eplb_gap.experiments.measuring.cell import Cell, failure_row
from eplb_gap.experiments.measuring.cell_server import ending
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.heuristics.environment import INTERPRET
from eplb_gap.problem import child

_START = (
    "import sys; sys.path[:] = sys.argv[2:]\n"
    "from eplb_gap.experiments.measuring.cell_server import serve\n"
    "serve(int(sys.argv[1]))"
)


class CellServer:
    """A process that forks cells, one at a time, each with one thread."""

    def __init__(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        with theirs:
            # Started anew, not by multiprocessing: that would run the user's script again, and daemons may not have children.
            self.process = child.start(
                ["-c", _START, str(theirs.fileno()), *sys.path],
                {**child.ONE_THREAD, INTERPRET: "0"},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a cell prints must not get into the tables or JSON of the runner
            )

    def run(self, cell: Cell) -> Row:
        """Return the row of a cell, whatever happens to it."""
        try:
            self._pipe.send(cell)
            answer = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            return failure_row(cell, ending(self.process.wait()))
        except Exception as error:  # a cell that cannot be pickled
            return failure_row(cell, f"failed: {type(error).__name__}: {error}")
        return Row(answer["row"]) if "row" in answer else failure_row(cell, answer["failure"])

    def stop(self) -> None:
        """Kill the process; its cell dies with it."""
        child.end(self.process)


class CellServers:
    """Runs cells from several threads, each cell in a server that is idle or else started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[CellServer] = []
        self._all: set[CellServer] = set()
        self._stopped = False

    def run(self, cell: Cell) -> Row:
        """Return the row of a cell."""
        with self._lock:
            if self._stopped:
                return failure_row(cell, "failed: the run was stopped")
            server = self._idle.pop() if self._idle else CellServer()
            self._all.add(server)
        row = server.run(cell)
        with self._lock:
            if server.process.poll() is None:
                self._idle.append(server)
            else:
                self._all.discard(server)
        return row

    def stop(self) -> None:
        """Stop all servers and their cells; threads that wait for one get a failure."""
        with self._lock:
            self._stopped = True
            for server in list(self._all):
                server.stop()
