"""Driving the real code of a host: a script of this folder in a process of its own, since two versions do not go into one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eplb_gap.experiments.hosts.packages import Release, Unavailable, unpacked
from eplb_gap.problem.child import kill_group

HERE = Path(__file__).resolve().parent
SECONDS = 240


def package_of(release: Release) -> Path:
    """Return the folder of a release, or skip the test with the reason why it cannot be had."""
    try:
        return unpacked(release)
    except Unavailable as error:
        print(f"skipped: {error}")
        pytest.skip(str(error))


def drive(script: str, release: Release, *arguments: str, seconds: float = SECONDS, **environment: str) -> list[str]:
    """Run a script of this folder on a release and return the lines that it printed, which are shown too.

    Parameters
    ----------
    script : str
        Its name; it gets the folder of the unpacked release and the arguments.
    release : Release
        Unpacked if it is not; where it cannot be had the test is skipped.
    seconds : float
        After so many the test fails. However it ends, nothing that the process started is left.
    environment : str
        Variables; those of this project that are set otherwise are left out.
    """
    # this process may be killed before it can kill, so the driver follows it
    command = [sys.executable, str(HERE / "ending.py"), str(HERE / script), str(package_of(release)), *arguments]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("EPLB_GAP_")}
    variables |= {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", **environment}
    print(f"\n{release}: {script} {' '.join([*arguments, *(f'{name}={value}' for name, value in environment.items())])}")
    with subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            kill_group(process.pid)
            output, _ = process.communicate()
            pytest.fail(f"{script} on {release} was killed after {seconds} s; it had printed:\n{output}")
        finally:
            if process.returncode is None:
                kill_group(process.pid)
    print(output, end="", flush=True)
    assert process.returncode == 0, f"{script} on {release} ended with {process.returncode}:\n{output}"
    return output.splitlines()
