from __future__ import annotations

import os
import signal
import sys
import threading

import pytest
from test_runner import good_lines, good_lines_so_far, grid, quiet, wait_until

from eplb_gap.experiments.measuring import cluster, rows
from eplb_gap.experiments.measuring.runner import run_cells
from eplb_gap.problem import InputError

distributed = pytest.importorskip("distributed")


@pytest.fixture
def local():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as found:
        yield found


def test_all_rows_come_once_though_a_worker_is_killed(tmp_path, local):
    count = 120

    def kill_one():
        wait_until(lambda: good_lines_so_far(tmp_path) >= 20)
        os.kill(local.workers[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    found = run_cells(grid(tmp_path, count), tmp_path, 2, quiet(), local.scheduler_address)
    killer.join()
    assert [row["value"] for row in found] == [1] * count
    assert good_lines(tmp_path) == dict.fromkeys((cell.key for cell in grid(tmp_path, count)), 1)
    servers = {line.split()[1] for line in (tmp_path / "log").read_text().splitlines()}
    assert len(servers) >= 2


def be_elsewhere():
    rows.environment = lambda: {"revision": "elsewhere"}


def test_workers_of_another_revision_are_refused(tmp_path, local):
    with distributed.Client(local) as client:
        client.run(be_elsewhere)
    with pytest.raises(InputError, match="runs revision elsewhere, this machine"):
        run_cells(grid(tmp_path, 1), tmp_path, 1, quiet(), local.scheduler_address)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://x", "127.0.0.1"])
def test_an_address_that_does_not_answer_is_named(tmp_path, monkeypatch, address):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1.0)
    with pytest.raises(InputError, match=f"--scheduler {address}: no Dask scheduler answers there"):
        run_cells(grid(tmp_path, 1), tmp_path, 1, quiet(), address)


def test_dask_must_be_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match="pip install"):
        run_cells(grid(tmp_path, 1), tmp_path, 1, quiet(), "tcp://127.0.0.1:1")
