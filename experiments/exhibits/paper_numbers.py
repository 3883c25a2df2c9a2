"""Every measured number that the paper's text states, from the published rows: name, value, and the rows it came from."""

from __future__ import annotations

import json
from typing import Any

from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies.catalogue import STUDIES, script
from eplb_gap.experiments.studies.numbers import chosen

HOMES = {name: module for module, study in STUDIES.items() for name in study.numbers}
"""The study that states it, by the name of a number."""
NUMBERS = {name: STUDIES[module].numbers[name] for name, module in HOMES.items()}
SUITES = tuple(sorted({suite for number in NUMBERS.values() for suite, _, _ in number.patterns}))


def numbers(measured: Rows) -> dict[str, dict[str, Any]]:
    """Return every number of the paper with the rows it came from."""
    return {
        name: {
            "value": number.compute(chosen(measured, number.patterns)),
            "from": [" | ".join(pattern) for pattern in number.patterns],
            "script": script(HOMES[name]),
        }
        for name, number in sorted(NUMBERS.items())
    }


def render(measured: Rows) -> str:
    """Return the numbers as JSON that typst reads."""
    return json.dumps(numbers(measured), indent=1, ensure_ascii=False) + "\n"
