"""Tests of the published figures: embedded fonts, stable bytes, PNG only for the README."""

from __future__ import annotations

import re

import numpy as np
import pytest

from eplb_gap.experiments.exhibits.exhibits import FIGURES
from eplb_gap.experiments.exhibits.figures import scaling
from eplb_gap.experiments.exhibits.figures.before_after import by_load
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.published.blocks import pages
from eplb_gap.experiments.published.manifest import FIGURE_FOLDER

FOLDER = rows.ROOT / FIGURE_FOLDER


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_every_font_is_embedded(figure):
    written = (FOLDER / f"{figure.name}.pdf").read_bytes()
    described = [part for part in written.split(b"endobj") if re.search(rb"/Type\s*/FontDescriptor", part)]
    assert described
    assert all(re.search(rb"/FontFile[23]", part) for part in described)


def test_png_are_those_of_the_pages():
    shown = {name for text in pages(rows.ROOT).values() for name in re.findall(rf"{FIGURE_FOLDER}/(\w+)\.png", text)}
    assert shown == {path.stem for path in FOLDER.glob("*.png")}


def test_a_figure_drawn_twice_has_the_same_bytes(tmp_path):
    published = rows.read_suites(rows.RESULTS)
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        folder.mkdir()
        scaling.draw(published, folder)
    first, second = ((folder / "scaling.pdf").read_bytes() for folder in folders)
    assert first == second


def test_the_heat_map_orders_nodes_and_their_gpus_and_keeps_every_load():
    loads = np.array([[1.0, 2.0, 5.0, 0.0], [4.0, 3.0, 1.0, 6.0]])
    assert by_load(loads, 2).tolist() == [[5.0, 0.0, 2.0, 1.0], [4.0, 3.0, 6.0, 1.0]]
