"""Step time against imbalance on published timings: is a hinge fitted to six maps right about the seventh?

Part of ``eplb-gap bench network``.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.analysis.step_time.hinge import Hinge, fit_hinge
from eplb_gap.analysis.step_time.profile import FOLDER
from eplb_gap.analysis.step_time.timed_maps import read_timed_maps
from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, NUMBERS, Shape
from eplb_gap.experiments.measuring.rows import Fields, Row, Rows
from eplb_gap.experiments.studies.numbers import Number
from eplb_gap.experiments.studies.study import Study

SUITE = "timed_maps"
NAME = "Qwen2-57B-A14B EP8"
PUBLISHED = read_timed_maps(FOLDER / "qwen2-57b-ep8-h20.csv")
"""The maps, of which every layer's fullest GPU over the mean is averaged, as the package has them."""
assert PUBLISHED.measured_on is not None
assert PUBLISHED.timed is not None
assert PUBLISHED.imbalance is not None
MEASURED_ON, TIMED, IMBALANCE, SECONDS = PUBLISHED.measured_on, PUBLISHED.timed, PUBLISHED.imbalance, PUBLISHED.seconds
SOURCE = f"published timings of seven maps of one set of counts ({MEASURED_ON}; {TIMED})"
ASKED = 0.005


def fitted_cell() -> Fields:
    """Fit a hinge to all maps, and predict every one from the others; the same with a straight line."""
    fit = fit_hinge(IMBALANCE, SECONDS)
    assert fit.hinge.beta_interval is not None
    assert fit.hinge.knee_interval is not None
    return {
        "kind": "timed maps",
        "hash": "",
        "parameters": {"source": SOURCE},
        "status": "fitted",
        "imbalance": list(IMBALANCE),
        "measured": list(SECONDS),
        "hinge": {"seconds": fit.hinge.seconds, "beta": fit.hinge.beta, "knee": fit.hinge.knee},
        "beta_interval": list(fit.hinge.beta_interval),
        "knee_interval": list(fit.hinge.knee_interval),
        "left_out": fit.left_out.tolist(),
        "left_out_line": _line_left_out(),
    }


def _line_left_out() -> list[float]:
    """Return for every map the relative error of its time as a straight line through the others predicts it."""
    r, t = np.array(IMBALANCE), np.array(SECONDS)
    errors = []
    for out in range(r.size):
        rest = np.arange(r.size) != out
        slope, start = np.polyfit(r[rest], t[rest], 1)
        errors.append(float((start + slope * r[out]) / t[out] - 1))
    return errors


def cells() -> list[Cell]:
    """Return the one cell."""
    return [Cell(SUITE, NAME, "hinge", fitted_cell)]


def find(measured: Rows) -> Row:
    """Return the row."""
    return measured.one(suite=SUITE, instance=NAME)


def hinge(row: Row) -> Hinge:
    """Return the hinge that was fitted."""
    return Hinge(**row["hinge"])


def _ends(values: list[float], digits: int) -> str:
    return f"{values[0]:.{digits}f} to {values[1]:.{digits}f}"


def table(measured: Rows) -> str:
    """Return what the maps took and what was predicted, as Markdown."""
    row = find(measured)
    fit = hinge(row)
    columns = (row["imbalance"], row["measured"], row["left_out"], row["left_out_line"])
    body = [
        [f"{r:.3f}", f"{t:.2f}", f"{fit.at(r):.2f}", f"{100 * error:+z.2f}", f"{100 * line:+z.2f}", yes_or_no(r <= fit.knee)]
        for r, t, error, line in zip(*columns, strict=True)
    ]
    header = ["imbalance", "seconds", "hinge", "left out: error, %", "straight line, left out: error, %", "inside the dead zone"]
    return (
        f"## Time against imbalance\n\n{SOURCE[0].upper()}{SOURCE[1:]}. The hinge T0 (1 + beta max(0, r - knee)) through all: "
        f"T0 {fit.seconds:.2f} s, beta {fit.beta:.3f} (95 % {_ends(row['beta_interval'], 3)}), knee {fit.knee:.3f} "
        f"({_ends(row['knee_interval'], 3)}), by profile likelihood. *Left out*: the map's time as the six others predict it.\n\n"
        + markdown(header, body)
        + "\n"
    )


def levels(measured: Rows) -> list[list[str]]:
    """Return what is asked and measured of the predictions."""
    worst = max(map(abs, find(measured)["left_out"]))
    what = f"seven published maps ({NAME}), each predicted from the six others"
    return [[what, f"within {100 * ASKED:g} %", f"worst {100 * worst:.2f} %", yes_or_no(worst <= ASKED)]]


def _number(text: str) -> Number:
    def filled(measured: Rows) -> str:
        row = find(measured)
        ends = {
            f"{name}_{end}": row[f"{name}_interval"][at] for name in ("beta", "knee") for at, end in ((0, "low"), (1, "high"))
        }
        of_line, of_hinge = (100 * max(map(abs, row[name])) for name in ("left_out_line", "left_out"))
        return text.format(**row["hinge"], **ends, worst=of_hinge, worst_line=of_line)

    return Number(((SUITE, NAME, "hinge"),), filled)


STUDY = Study(
    SUITE,
    job="network",
    about="a hinge fitted to published timings of seven maps",
    cells=cells,
    shapes=(
        Shape(
            "timed maps",
            CELL
            | {
                "imbalance": NUMBERS,
                "measured": NUMBERS,
                "hinge": "object of number",
                "beta_interval": NUMBERS,
                "knee_interval": NUMBERS,
                "left_out": NUMBERS,
                "left_out_line": NUMBERS,
            },
        ),
    ),
    table=table,
    levels=levels,
    figures=("step_time",),
    numbers={
        "hinge-beta": _number("{beta:.3f} [{beta_low:.3f}, {beta_high:.3f}]"),
        "hinge-knee": _number("{knee:.3f} [{knee_low:.3f}, {knee_high:.3f}]"),
        "hinge-worst": _number("{worst:.2f}"),
        "line-worst": _number("{worst_line:.2f}"),
    },
)
