"""A file is written as a whole or not at all."""

from __future__ import annotations

import os

import pytest

from eplb_gap.problem import InputError
from eplb_gap.problem.atomic import check_writable, replacing, write_atomically


def test_a_block_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("half of the n")
        raise RuntimeError
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_missing_folders_are_made_and_the_new_file_takes_the_place(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    for content in (b"one", b"two"):
        write_atomically(path, content)
        assert [(p.name, p.read_bytes()) for p in path.parent.iterdir()] == [("a.txt", content)]


@pytest.mark.parametrize("name", [".", "file/a.txt", "name" * 100])
def test_what_cannot_be_written_is_one_error_that_names_it(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        write_atomically(tmp_path / name, b"x")


def test_a_link_is_followed_and_what_is_no_file_is_left_alone(tmp_path):
    real, link, pipe, loop = (tmp_path / name for name in ("real.txt", "link.txt", "pipe", "loop"))
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(real)
    write_atomically(link, b"new")
    assert (link.is_symlink(), real.read_bytes(), real.stat().st_mode & 0o777) == (True, b"new", 0o600)
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    for path in (pipe, loop):
        for refuse in (check_writable, lambda path: write_atomically(path, b"x")):
            with pytest.raises(InputError, match="cannot be written"):
                refuse(path)
    assert pipe.is_fifo()


def test_trying_whether_a_file_can_be_written_leaves_nothing(tmp_path):
    (tmp_path / "there.txt").write_text("stays")
    check_writable(tmp_path / "there.txt")
    check_writable(tmp_path / ("n" * 250))
    check_writable(tmp_path / "new" / "newer" / "file.txt")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("there.txt", "stays")]
    with pytest.raises(InputError, match="cannot be written"):
        check_writable(tmp_path / ("n" * 300))
