"""What results/README.md says of the files there: which study's rows are where, and what they hold."""

from __future__ import annotations

from eplb_gap.experiments.loads import witnesses
from eplb_gap.experiments.studies import schema
from eplb_gap.experiments.studies.jobs import JOBS, MAIN, Job

FILES_BLOCK = "files"
WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten"}
APART = (
    (
        "`certificates/*.json`",
        "certificates of every instance of the gap table: loads, map, bounds and witnesses, for `eplb-gap verify`",
    ),
    (
        "`certificates/witness-*.json`",
        f"one small named instance of every kind of witness ({', '.join(witnesses.KINDS)}), "
        "written anew by `python -m eplb_gap.experiments.published.publish --certificates`",
    ),
    (
        "`best_known.json`",
        "of every instance that a row of `solve` bounds the best makespan and the best bound with a witness of every layer, "
        "where they are from and what they rest on; a line an instance, for `eplb-gap verify --best-known`",
    ),
    ("`traces/recorded-windows.npz`", "12 windows of 100 steps, int64 [12, 8, 256]"),
    ("`traces/recorded-steps.npz`", "the same, step by step, int64 [1200, 8, 256]"),
    (
        "`traces/recorded-domains.npz`",
        "the same model serving eight domains one after the other, 100 steps each, int64 [800, 8, 256]",
    ),
    (
        "`traces/recorded-rhythm.npz`",
        "a third model of the same kind serving short recurring phases under a daily cycle, int64 [1600, 8, 256]; nothing was "
        "tuned on it",
    ),
    (
        "`traces/held-out-windows.npz`",
        "12 windows of a second model of the same kind, trained from another seed; nothing was tuned on it",
    ),
    (
        "`traces/recorded-routing.npz`",
        "the experts of every token in every 30th step of shifting traffic, served by the model of `recorded-rhythm.npz`, uint8 "
        "[81920, 8, 8]: a `RoutingTrace`",
    ),
)
"""Files that no study makes."""


def blocks() -> dict[str, str]:
    """Return the parts of results/README.md that follow from the studies, by the name of their block."""
    return {FILES_BLOCK: files(), schema.README_BLOCK: schema.table()}


def files() -> str:
    """Return the list of files as Markdown: the rows of every study, the tables of every job, and what lies beside them."""
    lines = [line for job in JOBS.values() for line in _of_job(job)]
    return "\n".join(["| file | what |", "|---|---|", *(f"| {file} | {what} |" for file, what in (*lines, *APART))])


def _of_job(job: Job) -> list[tuple[str, str]]:
    """Return a line per suite, studies of one suite together, suites that say the same together, then the job's tables."""
    said: dict[str, list[str]] = {}
    for study in sorted(job.studies, key=lambda study: study.appendix):
        if study.about:
            said.setdefault(study.suite, []).append(study.about)
    sharing: dict[str, list[str]] = {}
    for suite, parts in said.items():
        sharing.setdefault("; ".join(parts), []).append(f"`{suite}.ndjson`")
    of = f"`eplb-gap {job.command}`, from the {WORDS.get(len(said), len(said))} files above"
    tables = "all tables of the main job" if job.name == MAIN else f"tables of {of}"
    return [*((", ".join(suites), what) for what, suites in sharing.items()), (f"`{job.text}`", tables)]
