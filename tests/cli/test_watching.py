"""``watch`` as its user meets it: lines, JSON, a table that is drawn anew, metrics, Ctrl-C, one error for bad input."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from record_folder import CALL, NEW, call, save
from rich.console import Console

from eplb_gap.cli import main as cli
from eplb_gap.cli import watching

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def command(*arguments: Any) -> int:
        """Run the command line in this process and return its exit code."""
        monkeypatch.setattr(sys, "argv", ["eplb-gap", "watch", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as stopped:
            return int(stopped.code or 0)
        return 0

    return command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "records", [(1, CALL), (2, call([[9, 1, 1, 1], [5, 5, 5, 5]], in_use=NEW, not_recorded=2))])
    return tmp_path / "records"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Do something between two looks into the folder, then press Ctrl-C."""

    def between(*steps: Callable[[], object]) -> None:
        left = iter(steps)

        def sleep(_seconds: float) -> None:
            step = next(left, None)
            if step is None:
                raise KeyboardInterrupt
            step()

        monkeypatch.setattr(watching.time, "sleep", sleep)

    return between


def test_once_is_a_line_for_every_window(run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--once") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("2023-11-14T22:13:20Z model=2x4 call=1 host=vllm-0.33.0 tokens=36 served=")
    assert " not_recorded=2" in second
    assert run(folder, "--once", "--last", 1) == 0
    assert capsys.readouterr().out == second + "\n"


def test_once_leaves_a_broken_file_out_and_says_so(run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [broken] = save(folder, [(3, CALL)])
    broken.write_bytes(b"damaged")
    metrics = folder.parent / "m.prom"
    assert run(folder, "--once", "--json", "--prometheus", metrics) == 0
    output = capsys.readouterr()
    assert [window["call"] for window in json.loads(output.out)["windows"]] == [1, 2]
    assert output.err.startswith(f"left out: file {broken} ")
    assert "eplb_gap_served_gap_ratio" in metrics.read_text()
    assert run(folder, "--once", "--last", 1) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert str(broken) in output.err


def test_once_as_json(run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = tmp_path / "eplb_gap.prom"
    assert run(folder, "--once", "--json", "--prometheus", metrics) == 0
    windows = json.loads(capsys.readouterr().out)["windows"]
    assert [window["call"] for window in windows] == [1, 2]
    assert f'eplb_gap_served_gap_ratio{{model="2x4"}} {windows[1]["served"]["gap"]!r}\n' in metrics.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["typo", "--once"], "typo is no folder"),
        (["typo"], "typo is no folder"),
        ([".", "--once"], "record folder . holds no recorded calls"),
        (["records", "--once", "--port", 0], "--port is given with --once"),
        (["records", "--port", 70000], "port is 70000"),
        (["records", "--once", "--prometheus", "records"], "--prometheus is records"),
        (["records", "--once", "--last", 0], "--last"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.parent / "empty").mkdir()
    monkeypatch.chdir(folder.parent if arguments[0] != "." else folder.parent / "empty")
    assert run(*arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert said in output.err


def test_lines_come_as_files_do_until_ctrl_c(
    run: Run, folder: Path, looks: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, texts = tmp_path / "m.prom", []
    looks(
        lambda: texts.append(metrics.read_text()),
        lambda: save(folder, [(3, CALL)]),
        lambda: save(folder, [(4, CALL)])[0].write_bytes(b"damaged"),
        lambda: save(folder, [(5, CALL)]),
    )
    assert run(folder, "--json", "--prometheus", metrics) == 130
    output = capsys.readouterr()
    assert [json.loads(line)["call"] for line in output.out.splitlines()] == [1, 2, 3, 5]
    assert "left out: file" in output.err
    assert "eplb-gap: interrupted" in output.err
    assert 'eplb_gap_calls_total{model="2x4"} 2\n' in texts[0]
    assert 'eplb_gap_calls_total{model="2x4"} 4\n' in metrics.read_text()


def test_metrics_that_cannot_be_written_are_said_once(
    run: Run, folder: Path, looks: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = tmp_path / "m.prom"
    looks(lambda: (metrics.unlink(), metrics.mkdir()), lambda: None, lambda: metrics.rmdir())
    assert run(folder, "--prometheus", metrics) == 130
    assert capsys.readouterr().err.count("m.prom cannot be written") == 1
    assert metrics.is_file()


def test_a_terminal_shows_a_table_that_fits(
    run: Run, folder: Path, looks: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=80, height=16, color_system=None)
    monkeypatch.setattr(watching, "out", screen)
    looks(lambda: save(folder, [(number, call([[number, 1, 1, 1], [5, 5, 5, 5]])) for number in range(3, 12)]))
    assert run(folder) == 130
    drawn = screen.file.getvalue()  # type: ignore[attr-defined]
    last = drawn[drawn.rindex(str(folder)) :]
    assert "vllm 0.33.0: 2 layers, 4 experts, 3 GPUs" in last
    assert "…" not in last
    assert all(len(line) <= 80 for line in last.splitlines())
    shown = [line.split()[2] for line in last.splitlines() if line.startswith("11-14")]
    assert shown == [str(number) for number in range(4, 12)]
    assert "2 calls could not be recorded" in drawn


def test_what_is_left_out_is_a_line_of_its_own(
    run: Run, folder: Path, looks: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.StringIO()
    for name in ("out", "log"):  # two streams, one terminal
        monkeypatch.setattr(watching, name, Console(file=written, force_terminal=True, width=80, height=24, color_system=None))
    looks(lambda: save(folder, [(3, CALL)])[0].write_bytes(b"damaged"), lambda: save(folder, [(4, CALL)]))
    assert run(folder) == 130
    lines = _on_screen(written.getvalue())
    [said] = [number for number, text in enumerate(lines) if "left out:" in text]
    assert lines[said].startswith("left out: file")
    assert [text for text in lines[said + 1 :] if text.startswith(str(folder)[:80])]
    assert sum(text.startswith("served: balancedness") for text in lines) == 1
    assert sum(text.startswith("11-14") for text in lines) == 3


def _on_screen(written: str) -> list[str]:
    """Return the lines that a terminal shows: it knows line feeds, carriage returns, cursor up and erasing a line."""
    lines, row = [""], 0
    for text, code in re.findall(r"([^\x1b\n\r]*)(\n|\r|\x1b\[[?0-9;]*[A-Za-z]|$)", written):
        lines[row] += text
        if code == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif code == "\x1b[2K":
            lines[row] = ""
        elif code.endswith("A"):
            row -= int(code[2:-1] or 1)
    return lines


def test_an_empty_folder_is_waited_for(
    run: Run, tmp_path: Path, looks: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=80, height=16, color_system=None)
    monkeypatch.setattr(watching, "out", screen)
    looks()
    assert run(tmp_path) == 130
    assert "waiting for the first call" in screen.file.getvalue()  # type: ignore[attr-defined]


def test_it_ends_when_nobody_reads_it_any_more(folder: Path) -> None:
    command = [sys.executable, "-m", "eplb_gap", "watch", str(folder), "--every", "0.05"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "call=1" in process.stdout.readline()
        process.stdout.close()  # as `| head -1` does
        assert process.wait(timeout=60) == 1
        assert "Traceback" not in process.stderr.read()
