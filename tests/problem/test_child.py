"""Processes of our own: what they find, what they may allocate, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eplb_gap.problem import child


def said(program: str, **options: object) -> str:
    process = child.start(["-c", program], stdout=subprocess.PIPE, **options)
    output, _ = process.communicate(timeout=60)
    return output.decode().strip()


def test_the_project_is_found_from_anywhere_in_a_group_of_its_own(tmp_path: Path) -> None:
    program = (
        "import os, eplb_gap.problem.child as child\n"
        "print(child.ROOT, os.getpgrp() == os.getpid(), os.environ['OMP_NUM_THREADS'])"
    )
    assert said(program, environment=child.ONE_THREAD, cwd=tmp_path) == f"{child.ROOT} True 1"


def test_the_end_of_a_process_is_that_of_its_group() -> None:
    program = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    process = child.start(["-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    os.kill(grandchild, 0)
    assert child.end(process) == child.end(process) == -signal.SIGKILL
    process.stdout.close()
    until = time.monotonic() + 10
    while time.monotonic() < until and Path(f"/proc/{grandchild}").exists():
        if Path(f"/proc/{grandchild}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return  # killed; whoever inherits it has yet to wait for it
        time.sleep(0.01)
    assert not Path(f"/proc/{grandchild}").exists()


@pytest.mark.parametrize(("for_good", "raised"), [(False, "raised"), (True, "ValueError")])
def test_memory_is_limited_for_good_or_not(for_good: bool, raised: str) -> None:
    program = f"""if True:
        import resource
        from eplb_gap.problem import child
        assert child.limit_memory(1 << 30, for_good={for_good}) == 1 << 30
        try:
            bytearray(2 << 30)
        except MemoryError:
            print("MemoryError")
        try:
            resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
            print("raised")
        except ValueError:
            print("ValueError")
        """
    assert said(program).split() == ["MemoryError", raised]


def test_a_process_dies_with_its_parent() -> None:
    program = f"""if True:
        import os, subprocess, sys, time
        from eplb_gap.problem import child
        read, write = os.pipe()
        parent = os.getpid()
        if not os.fork():
            os.write(write, b"1" if child.end_with_parent(parent) else b"0")
            time.sleep(60)
            os._exit(0)
        print(os.read(read, 1).decode(), child.end_with_parent({os.getpid()}), child.end_with_parent(1), flush=True)
        """
    started = time.monotonic()
    assert said(program) == "1 True False"  # the pipe to here is closed only when both have ended
    assert time.monotonic() - started < 30


def test_the_environment_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with pytest.raises(ZeroDivisionError), child.environment(child.ONE_THREAD):
        inside = subprocess.run(
            [sys.executable, "-c", "import os; print(os.environ['MKL_NUM_THREADS'])"], capture_output=True, text=True, check=True
        )
        assert (inside.stdout, os.environ["OMP_NUM_THREADS"]) == ("1\n", "1")
        raise ZeroDivisionError
    assert dict(os.environ) == before
