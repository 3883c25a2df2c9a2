from __future__ import annotations

import pytest

from eplb_gap.heuristics.control.controllers_file import parse_controller
from eplb_gap.heuristics.plugins import CONFIG, CONTROLLER, DECIDING, MAP, METHOD, RECORD, THRESHOLD, settings
from eplb_gap.problem import InputError

BUDGETED = "budgeted:interval=2,window=3,moves=0.05"
LPT = '[fast]\neffort = "lpt"\n'


def test_nothing_set_is_the_default_and_an_empty_value_is_none(asked_for):
    asked_for(**dict.fromkeys((METHOD, CONFIG, THRESHOLD, CONTROLLER, MAP), ""))
    found = settings.settings()
    assert (found.method.name, found.threshold, found.controller, found.map) == ("fast", 0.0, None, None)
    asked_for(**{METHOD: "host"})
    assert settings.settings().method is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (METHOD, "no_such", "EPLB_GAP_METHOD is 'no_such'; 'host' and [0-9]+ methods are allowed$"),
        (METHOD, "fsat", "EPLB_GAP_METHOD is 'fsat'; .* methods are allowed, the closest is 'fast'$"),
        (METHOD, "hsot", "EPLB_GAP_METHOD is 'hsot'; .* are allowed, the closest is 'host'$"),
        (CONFIG, "/no/such/file.toml", "EPLB_GAP_CONFIG: config file /no/such/file.toml does not exist"),
        (THRESHOLD, "much", "EPLB_GAP_THRESHOLD is 'much'; a finite number of at least 0 is needed"),
        (THRESHOLD, "-0.1", "EPLB_GAP_THRESHOLD is '-0.1'"),
        (THRESHOLD, "inf", "EPLB_GAP_THRESHOLD is 'inf'"),
        (THRESHOLD, "nan", "EPLB_GAP_THRESHOLD is 'nan'"),
        (
            CONTROLLER,
            "clairvoyant:interval=2",
            "EPLB_GAP_CONTROLLER: kind is 'clairvoyant', which foresees the loads.* none, stat",
        ),
        (CONTROLLER, "best", "EPLB_GAP_CONTROLLER: controller 'best': kind is 'best'; none, static"),
        (CONTROLLER, "budgeted:interval=0", "EPLB_GAP_CONTROLLER: controller 'budgeted:interval=0': interval is 0"),
        (CONTROLLER, "/no/such.toml", "EPLB_GAP_CONTROLLER: .*/no/such.toml does not exist"),
        (CONTROLLER, "TWO.toml", r"EPLB_GAP_CONTROLLER: .*TWO.toml holds 2 tables \[\[controller\]\]; exactly one is needed"),
        (MAP, "/no/such.json", "EPLB_GAP_MAP: .*/no/such.json"),
        (MAP, "EMPTY.json", "EPLB_GAP_MAP: map file EMPTY.json holds {}; no map format begins like that"),
    ],
)
def test_a_bad_setting_is_named_and_stays_bad(asked_for, monkeypatch, tmp_path, name, value, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "TWO.toml").write_text('[[controller]]\nkind = "none"\n' * 2)
    (tmp_path / "EMPTY.json").write_text("{}")
    asked_for(**{name: value})
    with pytest.raises(InputError, match=message):
        settings.settings()
    monkeypatch.delenv(name)  # an edit that only one rank would see
    with pytest.raises(InputError, match=message):
        settings.settings()


@pytest.mark.parametrize(("first", "second"), [(CONTROLLER, METHOD), (CONTROLLER, CONFIG), (CONTROLLER, THRESHOLD)])
def test_a_controller_excludes_the_other_settings(asked_for, first, second):
    asked_for(**{first: BUDGETED, second: "0.1"})
    with pytest.raises(InputError, match=f"{first} is '.*' and {second} is set too"):
        settings.settings()


def test_method_and_configuration_exclude_each_other(asked_for):
    asked_for(**{METHOD: "initial_program", CONFIG: "some.toml"})
    with pytest.raises(InputError, match="only one of the two"):
        settings.settings()
    asked_for(**{METHOD: "host"})
    with pytest.raises(InputError, match="EPLB_GAP_METHOD is 'host' and EPLB_GAP_CONFIG is set too"):
        settings.settings()


def test_whatever_a_library_raises_names_the_variables(asked_for, monkeypatch):
    def broken(*given):
        raise RuntimeError("a disk that is gone")

    monkeypatch.setattr(settings, "choose", broken)
    asked_for(**{METHOD: "fast"})
    with pytest.raises(InputError, match="EPLB_GAP_METHOD: RuntimeError: a disk that is gone"):
        settings.settings()


def test_files_are_read_once_and_their_contents_make_the_digest(asked_for, tmp_path):
    config, map_file, copy = tmp_path / "lpt.toml", tmp_path / "map.json", tmp_path / "copy.json"
    config.write_text(LPT)
    map_file.write_text("[[0,1,1]]")
    copy.write_text("[[0,1,1]]")
    asked_for(**{CONFIG: str(config), MAP: str(map_file)})
    found = settings.settings()
    config.unlink()
    map_file.write_text("[[1,0,0]]")
    assert settings.settings() is found
    assert found.map.content == [[0, 1, 1]]
    digest = found.summary[-8:]
    assert found.summary == f"config {config}, map {map_file}; settings {digest}"
    config.write_text(LPT)
    asked_for(**{MAP: str(copy)})
    assert settings.settings().summary.endswith(digest)
    asked_for(**{MAP: str(map_file)})
    assert not settings.settings().summary.endswith(digest)


@pytest.mark.parametrize(("method", "said"), [("", "method fast"), ("host", "method host")])
def test_where_is_recorded_is_said_and_does_not_make_the_digest(asked_for, method, said):
    found = []
    for folder in ("", "calls2", "a folder; of rank 3"):
        asked_for(**{METHOD: method, RECORD: folder})
        text, _, digest = settings.settings().summary.rpartition(" ")
        assert text == f"{said}{f', records into {folder}' if folder else ''}; settings"
        found.append(digest)
    assert len(set(found)) == 1
    assert RECORD not in DECIDING


def test_a_controller_comes_from_a_file_too(asked_for, tmp_path):
    path = tmp_path / "controller.toml"
    path.write_text('[[controller]]\nkind = "budgeted"\ninterval = 2\nmoves = 0.02\n')
    asked_for(**{CONTROLLER: str(path)})
    assert settings.settings().controller == parse_controller("budgeted:interval=2,moves=0.02")
