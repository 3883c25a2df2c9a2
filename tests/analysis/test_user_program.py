from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eplb_gap.analysis.protocol import score, timed
from eplb_gap.analysis.user_program import ProgramError, UserProgram
from eplb_gap.experiments.loads.synthetic import calibrated_trace
from eplb_gap.experiments.loads.traces import FLAGSHIP
from eplb_gap.heuristics.registry import get_method
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError

SMALL = Deployment(8, 12, 4)
LOADS = np.random.default_rng(0).integers(1, 100, (4, 2, 8))
HONEST = """
import json, os, select, stat, sys
from eplb_gap.heuristics.eplb import rebalance_experts as registered

def future(weight):
    '''Look for a window behind the one that was handed over: in the pipes and in the callers' variables.'''
    pipes = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}")]
    for fd in pipes:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        if stat.S_ISFIFO(os.fstat(fd).st_mode) and any(event & select.POLLIN for _, event in poller.poll(20)):
            return "a pipe with more windows"
    frame = sys._getframe(1)
    while frame:
        for name, value in frame.f_locals.items():
            if type(value).__name__ in ("ndarray", "Tensor") and value.shape != weight.shape:
                return f"an array {name}"
        frame = frame.f_back
    return None

print("loaded")
def rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus):
    print("noise on standard output")
    os.write(1, b"\\x00\\x00\\x00\\x02{}")
    found = future(weight)
    if found:
        raise RuntimeError(f"the future is in reach: {found}")
    return registered(weight, num_replicas, num_groups, num_nodes, num_gpus, method="eplb_snake_pipeline")
"""
IDENTITY = """
import torch
def legal(weight, num_replicas):
    layers, experts = weight.shape
    phy2log = (torch.arange(num_replicas) % experts).expand(layers, -1)
    logcnt = torch.ones(layers, experts, dtype=torch.int64)
    logcnt[:, : num_replicas - experts] = 2
    log2phy = torch.stack([torch.arange(experts), torch.arange(experts) + experts], 1).expand(layers, -1, -1).clone()
    log2phy[:, num_replicas - experts :, 1] = -1
    return phy2log, log2phy, logcnt
calls = 0
def rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus):
    global calls
    calls += 1
    phy2log, log2phy, logcnt = legal(weight, num_replicas)
    if calls == 2:
        {second}
    return phy2log, log2phy, logcnt
"""
# Takes over the pipes while it is loaded: claims to be ready, swallows the window and answers with any bytes it likes.
FORGER = """
import json, os, sys, time
at = json.loads(sys.orig_argv[-1])
def frame(text):
    return len(text).to_bytes(4, "big") + text
os.write(at["answers"], frame(b'{{"ready": true}}'))
os.read(at["requests"], 1 << 16)
os.write(at["answers"], {answer})
time.sleep(60)
"""


def program(folder: Path, source: str, **limits: float) -> UserProgram:
    path = folder / "mine.py"
    path.write_text(source)
    return UserProgram(path, SMALL, **limits)


def test_an_honest_copy_gets_exactly_the_score_of_the_registered_method_and_sees_no_future(tmp_path, capfd):
    path = tmp_path / "mine.py"
    path.write_text(HONEST)
    loads = calibrated_trace(0).loads[:4]
    with UserProgram(path, FLAGSHIP) as mine:
        result = score("seed", loads, FLAGSHIP, mine)
    expected = score("seed", loads, FLAGSHIP, timed(get_method("eplb_snake_pipeline"), FLAGSHIP))
    assert result.status == "legal"
    timeless = [[replace(pair, seconds=0.0) for pair in s.pairs] for s in (result, expected)]
    assert timeless[0] == timeless[1]
    assert result.combined == expected.combined
    assert result.seconds > 0
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.count("noise on standard output") == 3
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ("logcnt = logcnt.float()", "logcnt is float32; integers are needed"),
        ("log2phy = log2phy[:, :1, :1].expand(-1, 8, 1 << 40)", r"log2phy has shape \[2, 8, 1099511627776\]; \[2, 8, 1 to the"),
    ],
)
def test_an_illegal_answer_refuses_the_score_and_says_why(tmp_path, second, reason):
    with program(tmp_path, IDENTITY.format(second=second)) as mine:
        status = score("gpu", LOADS, SMALL, mine).status
    assert re.match(f"illegal: map planned on window 1: .*{reason}", status)


def test_an_exception_is_one_line_with_file_window_and_line(tmp_path):
    second = "raise KeyError('no such\\n\\x1b[31mexpert')"
    source = IDENTITY.format(second=second)
    line = next(number for number, text in enumerate(source.splitlines(), 1) if "KeyError" in text)
    with program(tmp_path, source) as mine:
        mine(LOADS[0])
        with pytest.raises(ProgramError) as caught:
            mine(LOADS[1])
        assert str(caught.value).startswith(f"program {tmp_path / 'mine.py'}, window 1: KeyError: ")
        assert str(caught.value).endswith(f"(line {line})")
        assert str(caught.value).isprintable()
        with pytest.raises(ProgramError, match="is not running"):
            mine(LOADS[2])


def test_a_call_that_never_ends_is_killed_with_what_it_started(tmp_path):
    source = "import subprocess\nopen('pid', 'w').write(str(subprocess.Popen(['sleep', '600']).pid))" + FORGER.format(
        answer="b''"
    )
    with program(tmp_path, source, call_seconds=0.5) as mine:
        pid = int((tmp_path / "pid").read_text())
        assert not has_ended(pid, tries=1)
        with pytest.raises(ProgramError, match=r"window 0: no answer within 0\.5 s"):
            mine(LOADS[0])
    assert has_ended(pid)


def has_ended(pid: int, tries: int = 100) -> bool:
    """Whether a process is gone, or dead and waiting for its parent."""
    for _ in range(tries):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def rebalance_experts(:", "SyntaxError: invalid syntax"),
        ("import no_such_library", r"ModuleNotFoundError: No module named 'no_such_library' \(line 1\)"),
        ("x = 1", "it has no function rebalance_experts"),
        ("import sys; sys.exit(4)", r"SystemExit: 4"),
        ("import os; os._exit(3)", "its process ended with exit code 3 without an answer"),
        ("import os; os.kill(os.getpid(), 9)", "its process was ended by signal 9 without an answer"),
        ("block = bytearray(1 << 40)", "MemoryError"),
        ("while True: pass", r"no answer within 0\.5 s"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_named(tmp_path, source, reason):
    limit = 0.5 if "while" in source else 60.0
    with (
        pytest.raises(ProgramError, match=rf"mine\.py, while it is loaded: .*{reason}"),
        program(tmp_path, source, load_seconds=limit),
    ):
        pass


def test_a_sibling_module_is_found_and_the_folder_is_the_working_directory(tmp_path):
    (tmp_path / "helper.py").write_text("import os\nfound = os.path.samefile(os.getcwd(), os.path.dirname(__file__))")
    with (
        pytest.raises(ProgramError, match="ValueError: True"),
        program(tmp_path, "import helper\nraise ValueError(helper.found)"),
    ):
        pass


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        ("b'\\xff' * 4", ProgramError, "garbled .a head of 4294967295 bytes"),
        ("frame(b'[[[[')", ProgramError, "garbled .its head is no JSON"),
        ("frame(b'[' * 60000)", ProgramError, "garbled .its head is no JSON"),
        ("frame(b'[1]')", ProgramError, "garbled .its head is no JSON object"),
        ("frame(b'{\"tensors\": 3}')", ProgramError, "garbled .its head does not announce three tensors"),
        (
            'frame(b\'{"tensors": [["int64", [2, 12]], ["int64", [2, 8, -1]], ["int64", [2, 8]]]}\')',
            ProgramError,
            "garbled .its head does not announce",
        ),
        (
            'frame(b\'{"tensors": [["int64", [2, 16]], ["int64", [2, 8, 2]], ["int64", [2, 8]]]}\')',
            PlacementError,
            r"phy2log has shape \[2, 16\]; \[2, 12\] is needed",
        ),
        (
            'frame(b\'{"tensors": [["object", [2, 12]], ["int64", [2, 8, 2]], ["int64", [2, 8]]]}\')',
            PlacementError,
            "phy2log is object; integers are needed",
        ),
        (
            'frame(b\'{"tensors": [["int64", [2, 12]], ["int64", [2, 8, 2]], ["int64", [2, 8]]]}\') + bytes(9)',
            ProgramError,
            "its process ended with exit code 0 without an answer",
        ),
        (
            'frame(b\'{"tensors": [["int64", [2, 12]], ["int64", [2, 8, 2]], ["int64", [2, 8]]]}\') + bytes(576)',
            PlacementError,
            "layer 0, expert 0: log2phy lists more than the 0 replicas of logcnt",
        ),
    ],
)
def test_forged_messages_are_refused_before_anything_is_allocated(tmp_path, answer, error, reason):
    with (
        program(tmp_path, FORGER.format(answer=answer).replace("time.sleep(60)", "os._exit(0)")) as mine,
        pytest.raises(error, match=reason),
    ):
        mine(LOADS[0])


def test_an_answer_before_its_window_is_refused(tmp_path):
    source = """
import json, os, sys, time
at = json.loads(sys.orig_argv[-1])
both = [len(text).to_bytes(4, "big") + text for text in (b'{"ready": true}', b'{"tensors": []}')]
os.write(at["answers"], b"".join(both))
time.sleep(60)
"""
    reason = "window 0: its answer is garbled .it came before the window was sent"
    with program(tmp_path, source) as mine, pytest.raises(ProgramError, match=reason):
        mine(LOADS[0])


def test_a_program_that_stops_reading_does_not_block_the_scorer(tmp_path):
    large = Deployment(256, 288, 32)
    path = tmp_path / "mine.py"
    path.write_text(FORGER.format(answer="b''").replace('os.read(at["requests"], 1 << 16)', ""))
    with UserProgram(path, large, call_seconds=0.5) as mine, pytest.raises(ProgramError, match=r"no answer within 0\.5 s"):
        mine(np.ones((58, 256), dtype=np.int64))  # larger than a pipe


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"program file .*nowhere\.py does not exist"):
        UserProgram(tmp_path / "nowhere.py", SMALL)


def test_a_program_plans_for_the_gpus_that_are_left(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text("from eplb_gap.heuristics.eplb import rebalance_experts\n")
    left = Deployment(8, 15, 5, active=[True, False, True, True, True])
    with UserProgram(path, left) as program:
        assert (
            score("gpu", LOADS, left, program).balancedness
            == score("gpu", LOADS, left, timed(get_method("fast"), left)).balancedness
        )
    with pytest.raises(InputError, match="the GPUs have 2 to 4 slots; a program needs equally many"):
        UserProgram(path, Deployment(8, slots_per_gpu=[4, 4, 2]))
