"""Predicted times as commands print them: never without the profile's name and source, and none without ``--profile``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from rich.markup import escape
from rich.table import Table

from eplb_gap.cli.options import DispatchChoice, out
from eplb_gap.problem import InputError, Placement

if TYPE_CHECKING:  # these load scipy and the solvers, which `--help` need not wait for
    from eplb_gap.analysis.asked import Asked
    from eplb_gap.analysis.capacity import Capacity
    from eplb_gap.analysis.evaluate import Evaluation
    from eplb_gap.analysis.explain import Explanation
    from eplb_gap.analysis.network.served import Counted
    from eplb_gap.analysis.replay.replay import Replay
    from eplb_gap.analysis.step_time.evaluated import MapTimes
    from eplb_gap.analysis.step_time.explained import ChainTimes
    from eplb_gap.analysis.step_time.profile import Profile
    from eplb_gap.analysis.step_time.replayed import ReplayTimes
    from eplb_gap.analysis.step_time.sized import SlotTimes
    from eplb_gap.analysis.step_time.timed import Timed
    from eplb_gap.analysis.windows import Windows
    from eplb_gap.cli.maps import PlannedMap


@dataclass(frozen=True)
class Clock:
    """The profile of a command line; without one it tells no time.

    Parameters
    ----------
    profile : Profile or None
    """

    profile: Profile | None

    @classmethod
    def of(cls, name: str | None, command: str | None = None) -> Self:
        """Read the profile that was asked for.

        Parameters
        ----------
        name : str or None
        command : str, optional
            What needs a hinge and looks at nothing else.

        Raises
        ------
        InputError
            As :func:`eplb_gap.analysis.step_time.profile.read_profile`, or if there is no hinge where one is needed.
        """
        if name is None:
            return cls(None)
        from eplb_gap.analysis.step_time.profile import read_profile
        from eplb_gap.analysis.step_time.timed import require_hinge

        profile = read_profile(name)
        if command is None:
            return cls(profile)
        require_hinge(profile, command)
        return cls(replace(profile, tiles=None, network=None))

    def dispatch(self, asked: Asked, dispatch: DispatchChoice | None) -> DispatchChoice | None:
        """Return the dispatch to count: where none is given that of the profile's network.

        Raises
        ------
        InputError
            If another one is given than that of the profile's network, or the profile says nothing of what is asked.
        """
        if self.profile is None:
            return dispatch
        from eplb_gap.analysis.step_time.timed import check_told

        check_told(self.profile, asked.trace.window_steps, asked.routed is not None)
        if self.profile.network is None or asked.routed is None:
            return dispatch
        timed = DispatchChoice(self.profile.network.dispatch)
        if dispatch is not None and dispatch is not timed:
            raise InputError(
                f"--dispatch is {dispatch.value}; the network of --profile {self.profile.name} is of {timed.value}, leave one "
                "of them out"
            )
        return timed

    def maps(
        self,
        results: Sequence[Evaluation],
        planned: Sequence[PlannedMap],
        windows: Windows,
        asked: Asked,
        counted: Counted | None,
    ) -> list[MapTimes]:
        """Return the times of evaluated maps, none without a profile."""
        if self.profile is None:
            return []
        from eplb_gap.analysis.step_time.evaluated import times_of

        traffic = [None] * len(results) if counted is None else counted.maps
        return [
            times_of(
                self.profile,
                result,
                one.placed if isinstance(one.placed, Placement) else None,
                windows,
                asked.cluster or asked.deployment,
                asked.trace.window_steps,
                sent if self.profile.network is not None else None,
            )
            for result, one, sent in zip(results, planned, traffic, strict=True)
        ]

    def chain(
        self, result: Explanation, one: PlannedMap, windows: Windows, asked: Asked, counted: Counted | None
    ) -> ChainTimes | None:
        """Return an explanation in time, None without a profile."""
        if self.profile is None:
            return None
        from eplb_gap.analysis.step_time.explained import chain_times
        from eplb_gap.analysis.step_time.timed import with_parts

        found = chain_times(self.profile, result)
        bounds = next(level.lower for level in result.levels if level.key == "hierarchical")
        served = counted.maps[0].served if counted is not None and self.profile.network is not None else None
        shape, steps = asked.cluster or asked.deployment, asked.trace.window_steps
        planned = with_parts(found.planned, one.regular("--map"), windows.serving, bounds, shape, steps, served)
        return replace(found, planned=planned)

    def sizes(self, result: Capacity) -> SlotTimes | None:
        """Return the times of numbers of slots, None without a profile."""
        if self.profile is None:
            return None
        from eplb_gap.analysis.step_time.sized import slot_times

        return slot_times(self.profile, result)

    def runs(self, result: Replay) -> ReplayTimes | None:
        """Return the time that controllers lose, None without a profile."""
        if self.profile is None or not result.runs:
            return None
        from eplb_gap.analysis.step_time.replayed import replay_times

        return replay_times(self.profile, result)

    def notes(self, asked: Asked, counted: Counted | None) -> list[str]:
        """Return what must be known beside the times, nothing without a profile."""
        if self.profile is None:
            return []
        from eplb_gap.analysis.step_time.timed import notes

        cluster = asked.deployment if asked.cluster is None else asked.cluster
        traffic = None if counted is None else counted.maps[0].served
        return notes(self.profile, asked.trace.window_steps, cluster.num_gpus, cluster.num_nodes, traffic)

    def section(self, times: ChainTimes | None, asked: Asked, counted: Counted | None) -> list[str]:
        """Return the part of a page that has the times of an explanation, none without a profile."""
        if times is None:
            return []
        from eplb_gap.analysis.step_time.section import section

        return [section(times, self.notes(asked, counted))]


def print_times(times: Sequence[MapTimes], notes: Sequence[str]) -> None:
    """Print a table of all maps on both windows, what tiles and network say, and where the times come from."""
    from eplb_gap.analysis.step_time.timed import HEADER, cells
    from eplb_gap.analysis.step_time.words import cited, knee

    profile = times[0].planning.time.profile
    rows: list[tuple[str, str, Timed]] = [
        row for one in times for row in ((one.name, "planning", one.planning), ("", "serving", one.serving))
    ]
    if profile.hinge is not None:
        table = Table(title=escape(f"predicted by profile {profile.name}"))
        table.add_column("map", overflow="fold")
        table.add_column("window")
        for column in HEADER:
            table.add_column(column, justify="right")
        for name, window, timed in rows:
            table.add_row(escape(name), window, *cells(timed), end_section=window == "serving")
        out.print(table)
    _print_parts([(f"{name or one}, {window}", timed) for (name, window, timed), one in zip(rows, _names(times), strict=True)])
    _say([cited(profile), *([] if profile.hinge is None else [knee(profile)]), *notes])


def print_chain_times(times: ChainTimes, notes: Sequence[str]) -> None:
    """Print what every step of an explanation is worth in time, the alternatives in time, and where the times come from."""
    from eplb_gap.analysis.step_time.explained import COLUMNS, alternative_lines, sentences, step_rows
    from eplb_gap.analysis.step_time.words import cited, knee

    profile = times.profile
    if profile.hinge is not None:
        table = Table(title=escape(f"predicted by profile {profile.name}"))
        for column in COLUMNS:
            table.add_column(column, justify="left" if column == COLUMNS[0] else "right")
        for row in step_rows(times):
            table.add_row(*row)
        out.print(table)
        _say([*sentences(times), *(f"- {line}" for line in alternative_lines(times))])
    _print_parts([("the map", times.planned)])
    _say([cited(profile), *([] if profile.hinge is None else [knee(profile)]), *notes])


def _print_parts(found: Sequence[tuple[str, Timed]]) -> None:
    from eplb_gap.analysis.step_time.timed import part_lines

    _say([f"{name}: {line}" for name, timed in found for line in part_lines(timed)])


def _names(times: Sequence[MapTimes]) -> list[str]:
    return [one.name for one in times for _ in range(2)]


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
