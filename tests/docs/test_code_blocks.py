"""The site's sources: every block of code runs, prints what the page says it prints, and every page can be reached."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from in_process import run

import eplb_gap
from eplb_gap.cli import options

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^```(\{[a-z-]+\})? ?([a-z]*)\n(?::caption: (\S+)\n\n)?(.*?)^```$", re.M | re.S)
SHOWN = {"text"}
"""What cannot run: commands of a server, or of a shell that builds for minutes."""
DIRECTIVES = {"{toctree}", "{eval-rst}", "{include}"}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A block between fences: what it is written in, the file it stands for, its text."""

    language: str
    caption: str | None
    text: str


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page in their order."""
    found = [Block(two or one, caption or None, text) for one, two, caption, text in FENCE.findall(page)]
    assert 2 * len(found) == len(re.findall(r"^```", page, re.M)), "a fence is not closed, or not of a form that is known"
    return found


def commands(text: str) -> list[tuple[str, str]]:
    """Return the commands of a console and what each prints; nothing where the page leaves that out."""
    parts = re.split(r"^\$ ", text, flags=re.M)
    assert not parts[0].strip(), "a console begins with a command"
    return [(line, said) for line, _, said in (part.partition("\n") for part in parts[1:])]


def check(text: str, names: dict[str, object], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run the blocks of a page in a folder and return what does not hold."""
    wrong: list[str] = []
    for block in blocks(text):
        if block.caption:
            (folder / block.caption).write_text(block.text)
        elif block.language == "python" and ">>>" in block.text:
            test = doctest.DocTestParser().get_doctest(block.text, names, "page", None, None)
            doctest.DocTestRunner(verbose=False, optionflags=FLAGS).run(test, out=wrong.append, clear_globs=False)
            names.update(test.globs)
        elif block.language == "python":
            exec(block.text, names)
        elif block.language == "console":
            wrong += [line for command, said in commands(block.text) for line in asked(command, said, monkeypatch)]
        elif block.language not in SHOWN | DIRECTIVES:
            wrong.append(f"a block is in {block.language or 'no language'}")
    return wrong


def asked(command: str, said: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a command in this process and return how what it prints differs from what a page says."""
    program, *words = shlex.split(command)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = run(monkeypatch, *words)
    if program != "eplb-gap" or code not in (0, None):
        return [f"{command}\nends with {code}"]
    example = doctest.Example(command, said)
    checker = doctest.OutputChecker()
    if said.strip() and not checker.check_output(said, printed.getvalue(), FLAGS):
        return [f"{command}\n{checker.output_difference(example, printed.getvalue(), FLAGS)}"]
    return []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a reader who has the shipped results."""
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options.out, "width", 100)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_and_print_what_it_says(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = check(page.read_text(), {}, folder, monkeypatch)
    assert not wrong, "\n".join(wrong)


WRONG = {
    "a result": "```python\n>>> 1 + 1\n3\n\n```\n",
    "a name of another page": "```python\n>>> deployment\n```\n",
    "what a command prints": "```console\n$ eplb-gap verify results/certificates/flashlb.json\n2 layers: ...\n```\n",
    "a command that fails": "```console\n$ eplb-gap verify none.json\n```\n",
    "a language that nobody runs": "```bash\nls\n```\n",
    "no language": "```\nls\n```\n",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_page_that_is_wrong_is_found(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(text, {}, folder, monkeypatch)


def test_every_page_is_in_a_list_of_contents() -> None:
    contents = [block.text for block in blocks((ROOT / "docs" / "index.md").read_text()) if block.language == "{toctree}"]
    listed = [line for text in contents for line in text.splitlines() if line and not line.startswith(":")]
    reached = {page for entry in listed for page in (ROOT / "docs").glob(f"{entry}.md")}
    assert {page.name for page in PAGES} - {page.name for page in reached} == {"index.md"}


def test_little_is_shown_that_does_not_run() -> None:
    found = [block.language for page in PAGES for block in blocks(page.read_text())]
    assert (
        len([language for language in found if language in SHOWN])
        < len([one for one in found if one in ("python", "console")]) / 2
    )


def test_the_interface_lists_every_public_name() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    named = set(re.findall(r"^\.\. auto\w+:: eplb_gap\.(?:\w+\.)*(\w+)$", text, re.M))
    assert named == set(eplb_gap.__all__)
