from __future__ import annotations

import pytest

from eplb_gap.experiments.published.blocks import fill, read
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
