"""Several recordings as one: order in time, what is refused, layers that are left out, experts that never occur."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eplb_gap.analysis.asked import read_problem
from eplb_gap.experiments.fuzzing.format_samples import SAMPLES, sample_loads, write_samples
from eplb_gap.problem import Deployment, InputError, LoadTrace
from eplb_gap.problem.formats import read

UNNUMBERED = {
    "eplb-gap",
    "routing",
    "vllm-ascend",
    "adrs",
    "npy",
    "npz",
    "npz:unnamed",
    "megatron",
    "logical-count",
    "csv:sglang",
} | {name for name in SAMPLES if name.startswith("routed-experts")}
"""Formats whose files do not say which steps they hold."""


ODD = r"layer 61 has 2 experts, 2 layers have 4; .*--leave-out-layers\) leaves layers out, and names layer 99, which is not there"


def counts(seed: int, steps: int = 3, layers: int = 2, experts: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 10**6, (steps, layers, experts))


def saved(path: Path, loads: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    np.save(path, loads)
    return path


def table(path: Path, windows: range, experts: int = 4, layers: tuple[int, ...] = (3, 4), seed: int = 0) -> Path:
    rng = np.random.default_rng([seed, windows.start])
    rows = [f"{w},{layer},{e},{rng.integers(1, 10**6)}" for w in windows for layer in layers for e in range(experts)]
    path.write_text("\n".join(["window,layer,expert,tokens", *rows]))
    return path


@pytest.mark.parametrize(
    "names",
    [
        ["d_2.5.npy", "d_10.5.npy", "d_10.75.npy"],
        ["load-2-9.npy", "load-10-1.npy", "load-10-2.npy"],
        ["2/x.npy", "10/x.npy", "11/x.npy"],
        ["run1/x_7.npy", "run1/x_8.npy", "run2/x_8.npy"],
    ],
)
def test_numbers_order_recordings_and_not_their_letters(tmp_path: Path, names: list[str]) -> None:
    parts = [counts(seed) for seed in range(3)]
    paths = [saved(tmp_path / name, part) for name, part in zip(names, parts, strict=True)]
    for given in (paths, paths[::-1], sorted(paths), iter(map(str, paths))):
        trace = read(given, window=1)
        assert np.array_equal(trace.loads, np.concatenate(parts))
        assert trace.provenance["joined_by"] == "numbers in their names"
        assert [part["rows"] for part in trace.provenance["joined"]] == [3, 3, 3]
    assert np.array_equal(read_problem(paths[::-1], num_slots=4, num_gpus=2).recorded.loads, np.concatenate(parts))


def test_without_numbers_the_steps_order_them_and_else_the_caller(tmp_path: Path) -> None:
    late, early = table(tmp_path / "a.csv", range(5, 8)), table(tmp_path / "b.csv", range(2, 5))
    trace = read([late, early])
    assert np.array_equal(trace.loads, np.concatenate([read(early).loads, read(late).loads]))
    assert (trace.provenance["windows"], trace.provenance["joined_by"]) == ([2, 7], "steps that they hold")
    one, two = saved(tmp_path / "wed.npy", counts(1)), saved(tmp_path / "tue.npy", counts(2))
    assert np.array_equal(read([one, two]).loads, np.concatenate([counts(1), counts(2)]))
    assert read([one, two]).provenance["joined_by"] == "order in which they were given"


@pytest.mark.parametrize("name", sorted(SAMPLES.keys() - {"parquet"}))  # read as CSV is, by a process that takes a second
def test_two_recordings_of_every_format_are_joined_or_their_shared_steps_refused(tmp_path: Path, name: str) -> None:
    folders = tmp_path / "part10", tmp_path / "part2"
    for folder, loads in zip(folders, (sample_loads(), sample_loads() + 2), strict=True):
        folder.mkdir()
        for file, content in SAMPLES[name](loads).items():
            (folder / file).write_bytes(content)
    ours = [sorted(folder.iterdir()) for folder in folders]
    given = list(folders) if len(ours[0]) > 1 else [files[0] for files in ours]
    single = [read(path).loads for path in given]
    if name in UNNUMBERED:
        assert np.array_equal(read(given).loads, np.concatenate(single[::-1]))
        everything = read([file for files in ours for file in files])  # as the shell names the files of all ranks
        assert np.array_equal(everything.loads, np.concatenate(single[::-1]))
    else:
        with pytest.raises(InputError, match=r"part(2|10).* and .*part(2|10).*(same time|share)|holds .* share none"):
            read(given)
    with pytest.raises(InputError, match="are one file; each is joined once"):
        read([given[0], folders[0] / ".." / "part10" / given[0].name if given[0].is_file() else folders[1] / ".." / "part10"])


def test_a_file_of_a_set_stands_for_it_once(tmp_path: Path) -> None:
    folder = write_samples(tmp_path / "dump", "sglang-recorder:per_pass")
    first, second = sorted(folder.iterdir())
    assert np.array_equal(read([second, first]).loads, read(folder).loads)
    with pytest.raises(InputError, match="hold the same recording"):
        read([folder, first])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda loads: loads, "a_1.npy and .*a_2.npy hold the same loads"),
        (lambda loads: np.concatenate([loads[2:], counts(9)]), "a_1.npy and .*a_2.npy share steps of the same loads"),
        (lambda loads: loads[:, :1], r"a_1.npy has 2 layers \(0 to 1\), .*a_2.npy has 1 layers \(0\); layers must be the same"),
        (lambda loads: loads[:, :, :3], "a_1.npy has 4 experts, .*a_2.npy has 3 experts; experts must be the same"),
        (lambda loads: np.zeros_like(loads) - 1, r"a_2.npy: loads\[0, 0, 0\] is -1"),
    ],
)
def test_what_cannot_be_joined(tmp_path: Path, change: Any, message: str) -> None:
    paths = [saved(tmp_path / "a_1.npy", counts(1)), saved(tmp_path / "a_2.npy", change(counts(1)))]
    with pytest.raises(InputError, match=message):
        read(paths)


def test_steady_synthetic_steps_are_no_overlap(tmp_path: Path) -> None:
    one = saved(tmp_path / "a_1.npy", np.full((3, 1, 4), 7))
    two = saved(tmp_path / "a_2.npy", np.full((4, 1, 4), 7))
    assert read([one, two]).loads.shape == (7, 1, 4)


def test_a_request_that_an_idle_server_sends_itself_is_no_overlap(tmp_path: Path) -> None:
    alike = counts(0, 1)
    paths = [saved(tmp_path / f"a_{seed}.npy", np.concatenate([counts(seed, 20), alike])) for seed in (1, 2)]
    assert len(read(paths).loads) == 42
    paths.append(saved(tmp_path / "a_3.npy", np.concatenate([counts(2, 20)[10:], counts(3, 10)])))
    with pytest.raises(InputError, match=r"a_2.npy and .*a_3.npy share steps of the same loads \(10\)"):
        read(paths)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["v1.9.npy", "v1.10.npy"], "can be ordered in two ways"),
        (["v01.npy", "v1.npy", "v2.npy"], "have the same numbers in their names"),
        (["a/v10.npy", "a/v2.npy", "b/v2.npy"], "have the same numbers in their names"),
        (["a.npy", "b.csv"], "a.npy is npy and .*b.csv is csv; recordings of one format"),
        (["a.npy", "no.npy"], "no.npy does not exist"),
        ([], "path names no file"),
    ],
)
def test_names_that_tell_no_order(tmp_path: Path, names: list[str], message: str) -> None:
    for seed, name in enumerate(names):
        if name.endswith(".csv"):
            table(tmp_path / name, range(2))
        elif name != "no.npy":
            saved(tmp_path / name, counts(seed))
    with pytest.raises(InputError, match=message):
        read([tmp_path / name for name in names])


@pytest.mark.parametrize("bad", [None, 5, [None], b"x"])
def test_what_is_no_path(bad: Any) -> None:
    with pytest.raises(InputError, match="a path, or several, are needed"):
        read(bad)


def test_traces_that_were_windowed_keep_their_steps(tmp_path: Path) -> None:
    for name, seed, steps in (("t_1.npz", 1, 2), ("t_2.npz", 2, 2), ("t_3.npz", 3, 1)):
        LoadTrace(counts(seed, 4), {"layer_ids": [3, 9], "num_model_layers": 12}).windowed(steps).save(tmp_path / name)
    trace = read([tmp_path / "t_2.npz", tmp_path / "t_1.npz"])
    assert (trace.window_steps, trace.provenance["layer_ids"], trace.provenance["num_model_layers"]) == (2, [3, 9], 12)
    with pytest.raises(InputError, match=r"t_1.npz has windows of 2 steps, .*t_3.npz has windows of 1 steps"):
        read([tmp_path / "t_1.npz", tmp_path / "t_3.npz"])


def test_layers_that_differ_are_left_out_before_they_are_refused(tmp_path: Path) -> None:
    mixed = tmp_path / "mtp.csv"
    nested = tmp_path / "mtp.json"
    nested.write_text('{"logical_count": [[1, 2, 3, 4], [1, 2, 3, 4], [5, 6]]}')
    with pytest.raises(InputError, match=r"layer 2 has 2 experts, .* leaves layers out, and names layer 99, which is not there"):
        read(nested, leave_out_layers=[99])
    whole = table(tmp_path / "whole.csv", range(2)).read_text()
    mixed.write_text(whole + "\n0,61,0,5\n0,61,1,6")
    with pytest.raises(InputError):
        read(mixed)
    trace = read(mixed, leave_out_layers=[61])
    assert np.array_equal(trace.loads, read(tmp_path / "whole.csv").loads)
    assert (trace.provenance["layer_ids"], trace.provenance["left_out_layers"]) == ([3, 4], [61])
    assert read(mixed, leave_out_layers={61, 3}).provenance["layer_ids"] == [4]
    for layers, message in (
        ({61, 7}, "names layer 7; mtp.csv has no such layer"),
        ({61, 3, 4}, "names all 3 layers"),
        ({99}, ODD),
    ):
        with pytest.raises(InputError, match=message):
            read(mixed, leave_out_layers=layers)
    for bad in (61, "61", [-1], [0.5], None):
        with pytest.raises(InputError, match="leave_out_layers is"):
            read(mixed, leave_out_layers=bad)  # type: ignore[arg-type]


def test_snapshots_with_a_ragged_layer(tmp_path: Path) -> None:
    path = write_samples(tmp_path, "vllm-snapshots")
    whole, document = read(path).loads, json.loads(path.read_text())
    document.pop("num_moe_layers", None)
    for snapshot in document["snapshots"]:
        for key in ("window_expert_load", "physical_to_logical_map"):
            snapshot[key] += [[0, 1]]
    path.write_text(json.dumps(document))
    with pytest.raises(InputError):
        read(path)
    assert np.array_equal(read(path, leave_out_layers=[whole.shape[1]]).loads, whole)


@pytest.mark.parametrize("name", sorted(SAMPLES.keys() - {"parquet"}))  # read as CSV is, by a process that takes a second
def test_a_layer_is_left_out_of_every_format(tmp_path: Path, name: str) -> None:
    path = write_samples(tmp_path / "x", name)
    whole = read(path)
    layers = whole.provenance.get("layer_ids") or list(range(whole.loads.shape[1]))
    found = read(path, leave_out_layers=layers[1:2])
    assert np.array_equal(found.loads, np.delete(whole.loads, 1, axis=1))
    assert found.provenance["layer_ids"] == [layers[0], *layers[2:]]
    more = read(path, experts=9)
    assert np.array_equal(more.loads[:, :, :4], whole.loads)
    assert more.loads.shape[2] == 9
    assert not more.loads[:, :, 4:].any()
    assert more.provenance["added_experts"] == [4, 5, 6, 7, 8]
    with pytest.raises(InputError, match=r"experts is 3; .* has 4"):
        read(path, experts=3)


def test_experts_that_one_file_never_names(tmp_path: Path) -> None:
    paths = [table(tmp_path / "d_1.csv", range(2)), table(tmp_path / "d_2.csv", range(2, 4), experts=3)]
    with pytest.raises(InputError, match="those that never occur are added where experts says"):
        read(paths)
    assert read(paths, experts=4).loads.shape == (4, 2, 4)
    with pytest.raises(InputError, match="added if experts is given as 4"):
        read_problem(paths[1], Deployment(4, 6, 2))
    assert read_problem(paths[1], Deployment(4, 6, 2), experts=4).trace.loads.shape == (2, 2, 4)
    with pytest.raises(InputError, match="experts is 5; deployment"):
        read_problem(paths[1], Deployment(4, 6, 2), experts=5)
