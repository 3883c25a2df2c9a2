from __future__ import annotations

import re
from collections import Counter

import pytest

from eplb_gap.experiments.exhibits.exhibits import BLOCKS
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.published.blocks import fill, pages, places, read
from eplb_gap.problem import InputError

TEXT = "a\n<!-- one -->\nold\n\nold\n<!-- /one -->\nb\n<!-- two -->\n\n<!-- /two -->\n"


def test_a_block_is_read_and_filled_and_nothing_else_changes():
    assert read(TEXT, "one") == "old\n\nold"
    assert read(TEXT, "three") == ""
    filled = fill(TEXT, {"one": r"new \1", "two": "x"})
    assert filled == TEXT.replace("old\n\nold", r"new \1").replace("two -->\n\n", "two -->\nx\n")
    assert fill(filled, {"one": "old\n\nold", "two": ""}) == TEXT


@pytest.mark.parametrize(("text", "count"), [("none", 0), (TEXT + TEXT, 2)])
def test_a_block_that_is_not_there_once_is_named(text, count):
    with pytest.raises(InputError, match=f"{count} blocks named one; one is needed"):
        fill(text, {"one": "x"})


def test_every_block_that_studies_declare_is_on_one_page():
    texts = pages(rows.ROOT)
    held = Counter(name for text in texts.values() for name in re.findall(r"^<!-- /(.*) -->$", text, re.MULTILINE))
    assert held == Counter(list(BLOCKS))


def test_a_block_is_looked_for_on_all_pages(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("<!-- one -->\n1\n<!-- /one -->\n")
    (tmp_path / "docs" / "page.md").write_text("<!-- two -->\n2\n<!-- /two -->\n")
    assert places(pages(tmp_path), ["one", "two", "none"]) == {"one": "README.md", "two": "docs/page.md", "none": "README.md"}
