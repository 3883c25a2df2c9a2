"""The part of an explanation's page that says what its steps are worth in time."""

from __future__ import annotations

import html
from collections.abc import Sequence

from eplb_gap.analysis.explain import STEPS
from eplb_gap.analysis.figures.time_against_imbalance import Point, curve
from eplb_gap.analysis.html_page import inline, svg, table
from eplb_gap.analysis.step_time.explained import COLUMNS, ChainTimes, alternative_lines, sentences, step_rows
from eplb_gap.analysis.step_time.timed import part_lines
from eplb_gap.analysis.step_time.words import cited, knee

ALTERNATIVE = "Time against imbalance, with the knee and the levels of the explanation marked; numbers in the table"


def section(times: ChainTimes, notes: Sequence[str]) -> str:
    """Return the times of an explanation as HTML, with the profile that they come from.

    Parameters
    ----------
    times : ChainTimes
    notes : sequence of str
        What must be known beside the times.
    """
    profile = times.profile
    body = ["<h2>What it is worth in time</h2>", f"<p class=note>{html.escape(cited(profile))}</p>"]
    if profile.hinge is not None:
        reached = [("perfect balance", "mean"), *((step.label, step.end) for step in STEPS)]
        points = [Point(times.levels[key].imbalance, label) for label, key in reached]
        said, *others = sentences(times)
        body += [
            f"<div class=verdict><p>{inline(said)}</p></div>",
            f'<div class=figure role=img aria-label="{ALTERNATIVE}">{svg(curve(profile, points), "time")}</div>',
            table(list(COLUMNS), step_rows(times)),
            *(f"<p>{inline(line)}</p>" for line in others),
            "<h2>What the alternatives are worth in time</h2>" if times.savings else "",
            "<ul>" + "".join(f"<li>{inline(line)}</li>" for line in alternative_lines(times)) + "</ul>" if times.savings else "",
        ]
    if lines := part_lines(times.planned):
        body.append("<ul>" + "".join(f"<li>{inline(line)}</li>" for line in lines) + "</ul>")
    more = [*([] if profile.hinge is None else [knee(profile)]), *notes]
    body += [f"<p class=note>{inline(line)}</p>" for line in more]
    return "\n".join(body)
