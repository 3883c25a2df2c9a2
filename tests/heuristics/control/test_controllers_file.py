"""Controllers from outside: what is written is read, anything else is one error that names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eplb_gap import Controller, InputError
from eplb_gap.heuristics.control.catalogue import KINDS
from eplb_gap.heuristics.control.controllers_file import parse_controller, read_controllers, write_controllers
from eplb_gap.heuristics.control.presets import PRESETS


def test_a_file_of_controllers_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        '[[controller]]\nkind = "budgeted"\nname = "small and often"\ninterval = 10\nwindow = 20\nmoves = 0.02\nburst = 0.2\n'
        '[[controller]]\nkind = "periodic"\nmethod = "initial_program"\nlag = 3\n'
    )
    assert read_controllers(path) == [
        Controller("budgeted", "small and often", interval=10, window=20, moves=0.02, burst=0.2),
        Controller("periodic", method="initial_program", lag=3),
    ]


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_again(tmp_path: Path, data: st.DataObject) -> None:
    part, number = st.floats(0, 1), st.integers(1, 10**6)
    values = {
        **dict.fromkeys(("interval", "window", "layers"), number),
        **dict.fromkeys(("moves", "below", "gain", "decay"), part),
        "method": st.sampled_from(["fast", "initial_program", "sample-average"]),
    }
    printable = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=9)
    controllers = []
    for kind in data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3)):
        read = sorted(KINDS[kind].reads & values.keys())
        keys = data.draw(st.sets(st.sampled_from(read))) if read else set()
        controllers.append(Controller(kind, data.draw(printable), **{key: data.draw(values[key]) for key in keys}))
    write_controllers(tmp_path / "c.toml", controllers, data.draw(st.text(max_size=30)))
    assert read_controllers(tmp_path / "c.toml") == controllers


def test_a_word_says_a_controller() -> None:
    assert parse_controller("none") == Controller("none")
    assert parse_controller("budgeted:interval=10,moves=0.02") == Controller("budgeted", interval=10, moves=0.02)
    assert parse_controller("budgeted:moves=0.1,burst=1") == Controller("budgeted", moves=0.1, burst=1)
    assert parse_controller("budgeted:moves=1") == Controller("budgeted", moves=1)
    for name, preset in PRESETS.items():
        assert parse_controller(name) == preset
        KINDS[preset.kind].check(preset)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "kind is ''"),
        ("best", "kind is 'best'; none, static, periodic"),
        ("periodic:interval", "'interval' is no setting"),
        ("periodic:speed=3", "'speed=3' is no setting"),
        ("periodic:interval=1,interval=2", "interval is given twice"),
        ("vllm-default:interval=2", "vllm-default is the name of a controller, which takes no settings"),
        ("periodic:interval=ten", "interval is 'ten'; an integer of at least 1"),
        ("periodic:interval=2.0", "interval is 2.0"),
        ("clairvoyant:moves=0.1,burst=0.1", "burst is set, which a controller of kind 'clairvoyant' does not read"),
        ("periodic:moves=0.1", "moves is set, which a controller of kind 'periodic' does not read"),
        ("budgeted:moves=nan", "moves is nan"),
        ("budgeted:moves=2", "moves is 2"),
        ("periodic:method=best", "method is 'best'"),
        ("periodic:name=a\nb", "name is 'a.nb'; a string of printable"),
        ("none:interval=3", "interval is set"),
    ],
)
def test_a_word_that_says_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_controller(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("interval = [", "is no TOML"),
        ("interval = 3", r"tables \[\[controller\]\] alone"),
        ('[controller]\nkind = "none"', r"tables \[\[controller\]\] alone"),
        ('[[controller]]\nkind = "none"\n[other]\n', r"tables \[\[controller\]\] alone"),
        ("[[controller]]\ninterval = 3", "controller 1: kind is None"),
        ('[[controller]]\nkind = "none"\n[[controller]]\nkind = "static"\nspeed = 3', "controller 2: speed is not a key"),
        ("[[controller]]\nkind = 3", "controller 1: kind is 3; a string"),
        ('[[controller]]\nkind = "periodic"\ninterval = true', "interval is True"),
        ('[[controller]]\nkind = "periodic"\ninterval = 0', "interval is 0"),
        ('[[controller]]\nkind = "periodic"\ninterval = 2\nlag = 3', "lag is 3; at most the interval"),
        ('[[controller]]\nkind = "budgeted"\nmoves = "all"', "moves is 'all'"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_controllers(path)
    with pytest.raises(InputError, match="does not exist"):
        read_controllers(tmp_path / "other.toml")
