"""A file is written as a whole or not at all."""

from __future__ import annotations

import pytest

from eplb_gap.problem import InputError
from eplb_gap.problem.atomic import replacing, write_atomically


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
