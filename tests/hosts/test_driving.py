"""What is left of a driver and its ranks when it is cut off: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import driving
import pytest

from eplb_gap.experiments.hosts.packages import VLLM

DRIVER = """
import os, subprocess, sys, time
sys.path.insert(0, {here!r})
{follows}
rank = os.fork()
if rank:
    print(os.getpid(), rank, file=open({told!r}, "w"), flush=True)
time.sleep(60)
"""
TEST = """
import sys
sys.path.insert(0, {here!r})
import driving
driving.package_of = lambda release: "nowhere"
driving.drive({script!r}, "none")
"""


FOLLOWS = "os.register_at_fork(after_in_child=os.setsid); from ending import follow_parent; follow_parent()"
"""Its rank is in a group of its own."""


def written(folder: Path, follows: str = "") -> tuple[Path, Path]:
    """Return a driver with a rank and the file it tells their numbers to; without ``follows`` only its group can end both."""
    script, told = folder / "driver.py", folder / "told"
    script.write_text(DRIVER.format(here=str(driving.HERE), told=str(told), follows=follows))
    return script, told


def numbers(told: Path) -> list[int]:
    """Return what the driver told, as soon as it has."""
    end = time.monotonic() + 30
    while not (told.is_file() and told.read_text().endswith("\n")):
        assert time.monotonic() < end
        time.sleep(0.02)
    return [int(word) for word in told.read_text().split()]


def running(pid: int) -> bool:
    """Return whether a process runs, which one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def none_left(pids: list[int]) -> bool:
    """Return whether all have ended, within some seconds."""
    end = time.monotonic() + 10
    while any(map(running, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(map(running, pids))


@pytest.mark.skipif(sys.platform != "linux", reason="follows processes as Linux lists them")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=str)
def test_a_test_that_is_cut_off_leaves_no_rank(number: int, tmp_path: Path) -> None:
    script, told = written(tmp_path, FOLLOWS if number == signal.SIGKILL else "")
    program = TEST.format(here=str(driving.HERE), script=str(script))
    path = {"PYTHONPATH": str(driving.HERE.parents[1])}
    with subprocess.Popen([sys.executable, "-c", program], env=os.environ | path, stderr=subprocess.DEVNULL) as test:
        pids = numbers(told)
        assert all(map(running, pids))
        test.send_signal(number)
        assert test.wait(30) != 0
    assert none_left(pids)


def test_a_driver_that_takes_too_long_leaves_no_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, told = written(tmp_path)
    monkeypatch.setattr(driving, "package_of", lambda release: tmp_path)
    with pytest.raises(pytest.fail.Exception, match="was killed after"):
        driving.drive(str(script), VLLM[0], seconds=4)
    assert none_left(numbers(told))
