"""``calibrate --timed-maps``: a step-time profile fitted to maps that were timed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eplb_gap.cli.asking import Question
from eplb_gap.cli.outputs import PROFILE, Output, check_outputs, marked
from eplb_gap.problem import InputError, PlacementError

if TYPE_CHECKING:  # these load scipy, which `--help` need not wait for
    from eplb_gap.analysis.step_time.hinge import HingeFit, Interval
    from eplb_gap.analysis.step_time.timed_maps import TimedMaps


def fit_profile(question: Question, file: Path, written: Path | None, force: bool, as_json: bool) -> None:
    """Fit a hinge to the timed maps of a file, print it, and write a profile where one is asked for."""
    from eplb_gap.analysis.step_time.hinge import fit_hinge
    from eplb_gap.analysis.step_time.profile import Profile, write_profile
    from eplb_gap.analysis.step_time.timed_maps import read_timed_maps

    if written is not None and written.suffix != ".toml":
        raise InputError(f"--out is {written}; a name that ends in .toml is needed with --timed-maps")
    target = Output("--out", written, "profile that eplb-gap calibrate --timed-maps fitted", marked(PROFILE))
    check_outputs([target], [("--timed-maps", file), ("--loads", question.loads)], force)
    timed = read_timed_maps(file)
    imbalance = timed.imbalance if timed.maps is None else _imbalances(question, timed.maps)
    if imbalance is None or timed.imbalance is not None:
        _refuse_question(question, file)
    assert imbalance is not None
    try:
        fit = fit_hinge(imbalance, timed.seconds)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    if written is not None:
        profile = Profile(
            name=written.stem,
            source=f"fitted by eplb-gap calibrate --timed-maps to the {len(timed.seconds)} maps of {file.name}",
            measured_on=timed.measured_on or f"not said in {file.name}",
            timed=timed.timed or f"what {file.name} times",
            hinge=fit.hinge,
        )
        write_profile(written, profile, f"{PROFILE.decode()}{file.name}.")
    if as_json:
        print(json.dumps({**_as_dict(timed, imbalance, fit), "files": [] if written is None else [str(written)]}))
        return
    print(_report(timed, imbalance, fit))
    if written is not None:
        print(f"written: {written}")


def _imbalances(question: Question, maps: tuple[Path, ...]) -> tuple[float, ...]:
    """Return the imbalance of every map on all windows of the loads, summed: what was served while the maps were timed."""
    from eplb_gap.analysis.step_time.predict import imbalance
    from eplb_gap.cli.maps import planned_map
    from eplb_gap.problem.validation import verify

    if question.loads is None:
        raise InputError(
            "--loads is missing; the timed maps are files, and their imbalance is that on the loads that were served meanwhile"
        )
    asked = question.read()
    served = asked.trace.loads.sum(axis=0)
    found = []
    for path in maps:
        if not path.is_file():
            raise InputError(f"map {path} does not exist; a file is needed")
        placed = planned_map(str(path), served[None], asked.deployment, None, asked.layer_ids).regular("map")
        try:
            verify(placed, served, asked.deployment)
        except PlacementError as error:
            raise InputError(f"map {path}: {error}") from None
        found.append(imbalance(placed, served, asked.deployment))
    return tuple(found)


def _refuse_question(question: Question, file: Path) -> None:
    """Refuse loads and deployment where the file says the imbalances."""
    default = Question()
    for name, value in vars(question).items():
        if value != getattr(default, name):
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} is given with --timed-maps {file}, which says the imbalances; leave it out")


def _as_dict(timed: TimedMaps, imbalance: tuple[float, ...], fit: HingeFit) -> dict[str, Any]:
    hinge = fit.hinge
    return {
        "seconds": hinge.seconds, "beta": hinge.beta, "beta_interval": hinge.beta_interval, "knee": hinge.knee,
        "knee_interval": hinge.knee_interval, "spread": fit.spread,
        "maps": [
            {"imbalance": r, "seconds": t, "fitted": hinge.at(r), "left_out_error": None if math.isnan(error) else error}
            for r, t, error in zip(imbalance, timed.seconds, fit.left_out.tolist(), strict=True)
        ],
    }  # fmt: skip


def _report(timed: TimedMaps, imbalance: tuple[float, ...], fit: HingeFit) -> str:
    hinge = fit.hinge
    assert hinge.seconds is not None
    digits = max(0, 3 - math.floor(math.log10(hinge.seconds)))
    lines = [
        f"seconds of {timed.timed or 'what was timed'}: {hinge.seconds:.{digits}f} (1 + {hinge.beta:.3f} max(0, imbalance - "
        f"{hinge.knee:.3f}))",
        f"beta {hinge.beta:.3f}{_interval(hinge.beta_interval)}, knee {hinge.knee:.3f}{_interval(hinge.knee_interval)}",
        f"up to an imbalance of {hinge.knee:.3f} a better balance is worth nothing; above it every 0.01 of imbalance takes "
        f"{hinge.beta:.2f} % longer",
        "",
        "imbalance   seconds    fitted  predicted by the others",
    ]
    for r, t, error in sorted(zip(imbalance, timed.seconds, fit.left_out.tolist(), strict=True)):
        others = "not identified" if math.isnan(error) else f"{100 * error:+.2f} %"
        lines.append(f"{r:9.3f} {t:9.{digits}f} {hinge.at(r):9.{digits}f}  {others}")
    known = [abs(error) for error in fit.left_out.tolist() if not math.isnan(error)]
    if known:
        lines.append(f"largest error where the others predict a map: {100 * max(known):.2f} %")
    return "\n".join(lines)


def _interval(ends: Interval | None) -> str:
    from eplb_gap.analysis.step_time.words import interval

    return f" ({'no interval from three maps' if ends is None else interval(ends)})"
