"""Step-time profiles: the shipped ones, round trips, and one error that names the field for whatever is wrong."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.analysis.step_time.hinge import Hinge, fit_hinge
from eplb_gap.analysis.step_time.profile import FOLDER, PROFILES, Network, Profile, Tiles, read_profile, write_profile
from eplb_gap.analysis.step_time.timed_maps import read_timed_maps
from eplb_gap.problem.errors import InputError

positive = st.floats(1e-12, 1e15)
texts = st.text(st.characters(min_codepoint=32, exclude_categories=("C", "Z")), min_size=1, max_size=30)
hinges = st.builds(Hinge, st.none() | positive, st.floats(0, 10), st.floats(1, 3))
hinges |= hinges.map(lambda h: replace(h, beta_interval=(h.beta - 0.1, h.beta), knee_interval=(h.knee, h.knee + 1.0)))
hinges |= hinges.map(lambda h: replace(h, beta_interval=(h.beta, None), knee_interval=(None, h.knee)))
tiles = st.builds(Tiles, positive, positive, st.integers(1, 4096), positive)
tiles |= st.builds(Tiles, st.just(0.0), positive, st.integers(1, 4096))
networks = st.builds(Network, positive, positive, st.just("node-dedup"), positive, positive, positive)
networks |= st.builds(Network, positive, positive, st.just("rank-dedup"), nvlink_bytes_per_second=positive)
networks |= st.builds(Network, positive, positive, st.just("none"), rdma_bytes_per_second=positive)
GIVEN: dict[str, Any] = {
    "name": "a card",
    "source": "measured here",
    "measured_on": "a card",
    "timed": "a step",
    "hinge": {"seconds": 10.0, "beta": 0.3, "knee": 1.1, "beta_interval": [0.2, 0.4], "knee_interval": [1.0, 1.2]},
    "tiles": {"weight_bytes": 1e6, "memory_bytes_per_second": 1e12, "tile_seconds": 1e-5, "tile_rows": 128},
    "network": {
        "latency_seconds": 1e-5,
        "bytes_per_copy": 7392,
        "dispatch": "node-dedup",
        "rdma_bytes_per_second": 4e10,
        "nvlink_bytes_per_second": 1e11,
    },
}


def as_toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    return repr(value) if isinstance(value, float) else json.dumps(value)


def write(path: Path, document: dict[str, Any]) -> Path:
    """Write a document of one level of tables as TOML."""
    texts = {name: value for name, value in document.items() if not isinstance(value, dict)}
    lines = [f"{name} = {as_toml(value)}" for name, value in texts.items()]
    for part in document.keys() - texts.keys():
        lines += [f"[{part}]", *(f"{name} = {as_toml(value)}" for name, value in document[part].items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_shipped_profile_is_read_and_says_where_it_comes_from() -> None:
    assert len(PROFILES) >= 12
    networks = []
    for name in PROFILES:
        profile = read_profile(name)
        assert profile.name == name
        assert "http" in profile.source or "not known" in profile.source
        networks += [profile.network] if profile.network is not None else []
    assert {network.dispatch for network in networks} == {"node-dedup", "rank-dedup", "none"}
    readme = (FOLDER / "README.md").read_text()
    assert all(name in readme or f"-{name.rpartition('-')[2]}" in readme for name in PROFILES)
    assert not any("h800" in name and read_profile(name).hinge for name in PROFILES)


@given(texts, texts, st.none() | hinges, st.none() | tiles, networks)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, name: str, source: str, hinge: Hinge | None, tiled: Tiles | None, network: Network
) -> None:
    profile = Profile(name, source, "a card", "64 requests", hinge, tiled, network)
    path = tmp_path_factory.getbasetemp() / "round.toml"
    write_profile(path, profile, "a comment\nof two lines")
    assert read_profile(path) == profile
    assert tomllib.loads(path.read_text())["name"] == name


@pytest.mark.parametrize("part", ["hinge", "tiles", "network"])
def test_every_field_that_is_missing_wrong_or_unknown_is_named(part: str, tmp_path: Path) -> None:
    path = write(tmp_path / "p.toml", GIVEN)
    whole = read_profile(path)
    assert whole.network is not None and whole.network.combine_factor == 2.0
    optional = {"seconds", "beta_interval", "knee_interval"}
    table = GIVEN[part]
    for name in table:
        less = {key: value for key, value in table.items() if key != name}
        if name in optional:
            read_profile(write(path, {**GIVEN, part: less}))
        else:
            with pytest.raises(InputError, match=rf"{path}: {part}\.{name} is (missing|None)"):
                read_profile(write(path, {**GIVEN, part: less}))
        for wrong in (-1.0, float("nan"), float("inf"), True, "1", [], 10**400):
            with pytest.raises(InputError, match=rf"{path}: {part}\.{name} is ") as raised:
                read_profile(write(path, {**GIVEN, part: {**table, name: wrong}}))
            assert len(str(raised.value)) < len(str(path)) + 200
    with pytest.raises(InputError, match=rf"{part}\.speed is not known"):
        read_profile(write(path, {**GIVEN, part: {**table, "speed": 1}}))
    with pytest.raises(InputError, match=rf"{part} is 3; a table is needed"):
        read_profile(write(path, {**GIVEN, part: 3}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hinge": {**GIVEN["hinge"], "knee": 0.9}}, "hinge.knee is 0.9"),
        ({"hinge": {**GIVEN["hinge"], "knee": 1.3}}, "hinge.knee_interval is .* does not hold the value 1.3"),
        ({"tiles": {**GIVEN["tiles"], "tile_rows": 12.5}}, "tiles.tile_rows is 12.5"),
        (
            {"tiles": {**GIVEN["tiles"], "weight_bytes": 0}},
            "tiles.memory_bytes_per_second is 1000000000000.0 with weight",
        ),
        ({"network": {**GIVEN["network"], "dispatch": "rank-dedup"}}, "rank-dedup sends nothing over it"),
        ({"network": {**GIVEN["network"], "dispatch": "all"}}, "node-dedup, rank-dedup, none is needed"),
        ({"name": "two\nlines"}, "name is .* one line"),
        ({"source": ""}, "source is ''"),
        ({"source": 3}, "source is 3"),
        ({"date": "today"}, "date is not known"),
    ],
)
def test_other_wrong_fields(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        read_profile(write(tmp_path / "p.toml", {**GIVEN, **change}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"gpus": 0}, "gpus is 0; a whole number"),
        ({"gpus": 8.0}, "gpus is 8.0; a whole number"),
        ({"nodes": True}, "nodes is True; a whole number"),
        ({"nodes": "two"}, "nodes is 'two'; a whole number"),
        ({"scatter": -0.1}, "scatter is -0.1; a finite number above 0"),
        ({"scatter": "1"}, "scatter is '1'; a finite number above 0"),
        ({"scatter": 1.5}, "scatter is 1.5; a part below 1 of the hinge's times"),
    ],
)
def test_what_was_measured_in_numbers(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = write(tmp_path / "p.toml", {**GIVEN, **change})
    with pytest.raises(InputError, match=says):
        read_profile(path)
    whole = Profile("p", "s", "m", "a step", Hinge(None, 0.3, 1.1), gpus=8, nodes=2, scatter=0.01)
    write_profile(path, whole)
    assert read_profile(path) == whole
    with pytest.raises(InputError, match="only with a hinge"):
        replace(whole, hinge=None, tiles=Tiles(0.0, 1e-3, 8))


def test_the_shipped_hinge_has_the_intervals_and_the_scatter_of_its_table() -> None:
    profile = read_profile("qwen2-57b-ep8-h20")
    assert profile.hinge is not None and profile.scatter == 0.0091 and "0.91 %" in profile.measured_on
    timed = read_timed_maps(FOLDER / "qwen2-57b-ep8-h20.csv")
    assert timed.imbalance is not None
    refit = fit_hinge(timed.imbalance, timed.seconds).hinge
    for name in ("beta_interval", "knee_interval"):
        assert getattr(profile.hinge, name) == pytest.approx(getattr(refit, name), abs=5e-4)


def test_profiles_of_networks_know_the_gpus_that_their_names_say() -> None:
    named = {name: re.search(r"-ep([0-9]+)", name) for name in PROFILES}
    assert {name: read_profile(name).gpus for name, of in named.items() if of} == {n: int(of[1]) for n, of in named.items() if of}


def test_texts_that_are_missing_and_profiles_without_a_part(tmp_path: Path) -> None:
    for name in ("name", "source", "measured_on", "timed"):
        less = {key: value for key, value in GIVEN.items() if key != name}
        with pytest.raises(InputError, match=f"{name} is missing"):
            read_profile(write(tmp_path / "p.toml", less))
    alone = {key: value for key, value in GIVEN.items() if not isinstance(value, dict)}
    with pytest.raises(InputError, match="at least one of hinge, tiles, network is needed"):
        read_profile(write(tmp_path / "p.toml", alone))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("qwen2-57b-ep8-h2", "qwen2-57b-ep8-h20 is meant, or one of a100, .*, or a TOML file"),
        ("zzz", "not known; one of a100"),
        ("missing.toml", "does not exist"),
        ("folder/missing", "does not exist"),
    ],
)
def test_an_unknown_name_lists_the_known_ones(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_profile(name)


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"a = 1\na = 2", b"[" * 5000, b"#" * 70000, b"x = " + b"9" * 5000])
def test_what_is_no_toml_is_one_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=str(path)):
        read_profile(path)
