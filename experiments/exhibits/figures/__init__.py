"""The published figures: one module per figure, drawn from rows alone; ``make figures`` redraws them."""

from __future__ import annotations

from pathlib import Path

from eplb_gap.experiments.measuring.rows import Row


def draw_all(rows: list[Row], folder: Path) -> list[Path]:
    """Draw every figure as PDF, those that the README shows as PNG too, and return the files."""
    from eplb_gap.experiments.exhibits.figures import before_after, gap_distribution, gap_runtime, window_balance

    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for module in (gap_distribution, window_balance, gap_runtime, before_after):
        drawn += module.draw(rows, folder)
    return drawn
