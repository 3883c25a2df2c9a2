"""Several paths behind ``--loads``, on every command that has it, and where OUT is for ``convert``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import run

from eplb_gap.analysis import asked
from eplb_gap.problem import InputError, LoadTrace, formats

SHAPE = ("--slots", "6", "--gpus", "2")
COMMANDS = {
    "solve": (),
    "evaluate": ("--map", "fast"),
    "explain": (),
    "calibrate": (),
    "calibrate online": ("--online",),
    "capacity": (),
    "replay": (),
    "convert": ("--map", "fast", "--to", "vllm", "out.json"),
}
"""What each command needs beside loads and deployment, the loads in front of it."""
FORMS = ("before an option", "repeated", "repeated with =", "last", "mixed")


def dump(folder: Path, time: str, seed: int) -> Path:
    """Write what SGLang's recorder writes in the mode ``stat``: a dense layer, and a step that was not used."""
    counts = torch.from_numpy(np.random.default_rng(seed).integers(1, 900, (4, 3, 5)).astype(np.int32))
    counts[:, 0] = 0
    counts[3] = 0
    path = folder / f"expert_distribution_recorder_{time}.pt"
    torch.save({"rank": 0, "logical_count": counts, "average_utilization_rate_over_window": None}, path)
    return path


@pytest.fixture
def dumps(tmp_path, monkeypatch):
    """Three dumps in the order of a shell, which is not that of their times, in the working folder."""
    for time, seed in (("1719912345.25", 2), ("1719912399.5", 3), ("999.75", 1)):
        dump(tmp_path, time, seed)
    monkeypatch.chdir(tmp_path)
    return sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "form"),
    [
        *((command, "as expanded") for command in COMMANDS),
        *((command, form) for command in ("evaluate", "convert") for form in FORMS),
    ],
)
def test_every_command_reads_all_of_them(command, form, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = []

    def read_problem(loads, *_arguments, **_options):
        given.extend(map(str, loads))
        raise InputError("enough")

    monkeypatch.setattr(asked, "read_problem", read_problem)
    rest = [*SHAPE, *COMMANDS[command]]
    words = {
        "as expanded": ["--loads", "a_2", "a_10", *rest],
        "before an option": ["--json", "--loads", "a_2", "a_10", "--policy", "global", *rest],
        "repeated": ["--loads", "a_2", "--loads", "a_10", *rest],
        "repeated with =": ["--loads=a_2", "--loads=a_10", *rest],
        "last": [*rest, "--loads", "a_2", "a_10"],
        "mixed": ["--loads=a_2", *rest, "--loads", "a_10"],
    }
    assert run(monkeypatch, command.split()[0], *words[form]) == 2
    assert capsys.readouterr().err == "eplb-gap: enough\n"
    assert given == ["a_2", "a_10"]


def test_no_path_and_an_empty_one_are_one_line(monkeypatch, capsys):
    for name, (words, message) in zip(
        ("evaluate", "convert", "solve", "replay"),
        (
            (["--loads", "--json"], "--loads is followed by no path; one, or several, are needed"),
            (["--loads", ""], "--loads is empty; a value is needed"),
            (["--loads="], "--loads is empty; a value is needed"),
            (["--loads", "x", "--deployment", ""], "--deployment is empty; a value is needed"),
        ),
        strict=True,
    ):
        assert run(monkeypatch, name, *words) == 2
        assert capsys.readouterr().err == f"eplb-gap: {message}\n"


def test_the_lines_of_the_readme_for_a_recorder(dumps, monkeypatch, capsys):
    map_in_use = ["--loads", *dumps, "--window", "3", *SHAPE, "--map", "fast", "--to", "sglang"]
    assert run(monkeypatch, "convert", *map_in_use, "location.json", "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["layers"] == 2
    assert "3 recordings joined by the times in their names, expert_distribution_recorder_999.75.pt to" in said.err
    assert len(json.loads(Path("location.json").read_text())["physical_to_logical_map"]) == 3
    assert run(monkeypatch, "evaluate", "--loads", *dumps, "--window", "3", *SHAPE, "--map", "location.json", "--json") == 0
    assert json.loads(capsys.readouterr().out)["serve_window"] == 2
    assert run(monkeypatch, "convert", "--loads", *dumps, "all.npz") == 0
    in_time = [torch.load(f"expert_distribution_recorder_{time}.pt") for time in ("999.75", "1719912345.25", "1719912399.5")]
    expected = np.concatenate([content["logical_count"].numpy()[:3, 1:] for content in in_time])
    assert np.array_equal(LoadTrace.load("all.npz").loads, expected)
    assert np.array_equal(formats.read(".").loads, expected)  # and the folder reads as its files do


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{0}", "{1}", "--map", "fast", "--to", "sglang"], "OUT is missing, or it is {1}, the last word behind --loads"),
        (["{0}", "{1}", "{2}"], "name OUT in front: convert OUT --loads {0} ... {2}"),
        (["{0}", "{1}", "--map", "fast", "--to", "sglang", "--force"], "OUT is missing, or it is {1}"),
        (["{0}", "--map", "fast", "--to", "sglang"], "Missing argument 'OUT'"),
        (["{0}", "--loads", "{1}"], "Missing argument 'OUT'"),
        (["{0}", "--map", "fast", "--to", "sglang", "{1}"], "{1} ends like torch; a map of format 'sglang' is JSON"),
        (["{0}", "--map", "fast", "--to", "sglang", "{0}", "--force"], "ends like torch"),
        (["{0}", "nowhere.pt", "--map", "fast", "--to", "sglang"], "OUT is missing, or nowhere.pt, the last word behind --loads"),
        (["{0}", "--map", "fast", "--to", "sglang", "nowhere.pt"], "nowhere.pt ends like torch"),
        (
            ["{0}", "no.csv", "--map", "fast", "--to", "sglang"],
            "no.csv, the last word behind --loads, is no recording: it does not",
        ),
        (
            ["{0}", "notes.txt", "--force"],
            "is no recording: it holds no loads of a known format, and nothing that convert writes",
        ),
        (["{0}", "no.CSV"], "nothing that convert writes ends in .CSV; name OUT behind the recordings or in front: convert OUT"),
        (
            ["{0}", "{1}", "{2}", "no.jsonl.gz"],
            "ends in .gz; name OUT behind the recordings or in front: convert OUT --loads {0} ...",
        ),
        (
            ["{0}", "there.npz"],
            "there.npz, the last word behind --loads, which is there and holds a recording; to write over it",
        ),
        (["{0}", "{1}", "{2}", "there.npz", "--force"], "with --force: convert there.npz --force --loads {0} ..."),
        (["{0}", "{0}", "new.npz"], "{0} and {0} are one file; each is joined once"),
        (["{0}", ".", "new.npz"], "{0} and . hold the same recording"),
        (["{0}", "copy_2.pt", "new.npz"], "{0} and copy_2.pt hold the same loads"),
        (["{0}", "same/{0}", "new.npz"], "have the same time in their names"),
        (["{0}", "other_2.npy", "new.npz"], "other_2.npy is npy; recordings of one format can be joined"),
    ],
)
def test_convert_does_not_guess_and_writes_over_no_recording(words, message, dumps, monkeypatch, capsys, tmp_path):
    (tmp_path / "copy_2.pt").write_bytes((tmp_path / dumps[0]).read_bytes())
    (tmp_path / "same").mkdir()
    dump(tmp_path / "same", "1719912345.25", 9)
    Path("notes.txt").write_text("of last week")
    np.savez("there.npz", loads=np.ones((2, 3, 5), dtype=int))
    np.save("other_2.npy", np.ones((2, 3, 5), dtype=int))
    if "." in words:
        (tmp_path / "same" / dumps[0]).unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    given = [word.format(*dumps) for word in words]
    assert run(monkeypatch, "convert", *SHAPE, "--loads", *given) == 2
    said = capsys.readouterr().err
    assert message.format(*dumps) in " ".join(said.replace("\u2502", " ").split())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_of_a_folder_it_is_said_what_was_not_looked_at(dumps, monkeypatch, capsys, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in dumps:
        (tmp_path / name).rename(folder / name)
    joined = (
        "3 recordings joined by the times in their names, expert_distribution_recorder_999.75.pt to "
        "expert_distribution_recorder_1719912399.5.pt"
    )
    for others, words in ((0, ()), (1, ("1 other file in",)), (40, ("40 other files in",))):
        for number in range(others):
            (folder / f"rank_{number}.log").write_text("not a recording")
        (folder / ".hidden").touch()
        (folder / "older").mkdir(exist_ok=True)
        assert run(monkeypatch, "convert", "all.npz", "--force", "--loads", "folder") == 0
        said = capsys.readouterr().err.splitlines()
        assert joined in said
        assert [line for line in said if "other file" in line] == [
            f"folder: 3 recordings read; {what} the folder not looked at" for what in words
        ]
    (folder / dumps[1]).unlink()
    (folder / dumps[2]).unlink()
    [notice] = formats.read(folder).provenance["notices"]
    assert notice == "1 recording read; 40 other files in the folder not looked at"


def test_the_way_to_write_over_a_trace_that_is_named(dumps, monkeypatch, capsys):
    assert run(monkeypatch, "convert", "--loads", dumps[0], "all.npz") == 0
    assert run(monkeypatch, "convert", "--loads", dumps[1], "all.npz") == 2
    told = capsys.readouterr().err.strip().rpartition("with --force: ")[2].split()
    assert run(monkeypatch, *told) == 0
    assert np.array_equal(LoadTrace.load("all.npz").loads, formats.read(dumps[1]).loads)


def test_the_fixed_forms_of_convert(dumps, monkeypatch, tmp_path):
    to = ("--map", "fast", "--to", "phy2log-json", *SHAPE, "--window", "3")
    for number, words in enumerate(
        (
            ("--loads", *dumps, "{}", *to),  # the last word, as there is no other
            ("--loads", *dumps, *to, "{}"),
            ("{}", "--loads", *dumps, *to),
            ("--json", "{}", *to, "--loads", *dumps),
            (*to, "--loads", *dumps, "--", "{}"),
            (*to, "--loads", *dumps[:-1], "--loads", dumps[-1], "{}"),
        )
    ):
        assert run(monkeypatch, "convert", *(word.format(f"{number}.json") for word in words)) == 0
        assert Path(f"{number}.json").read_text() == Path("0.json").read_text()
    assert run(monkeypatch, "convert", "--loads", dumps[0], "0.json", *to) == 0  # a map is no recording, and is known as a map
    assert run(monkeypatch, "convert", "--map", "0.json", "9.json", "--to", "vllm", "--experts", "5", *SHAPE) == 0


def test_experts_and_layers_reach_the_reader(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    rows = [f"{w},{layer},{e},{9 + (w + layer * e) % 5}" for w in range(3) for layer in (3, 61) for e in range(5 - layer // 30)]
    Path("mtp.csv").write_text("\n".join(["window,layer,expert,tokens", *rows]))
    to = ("--to", "vllm", "--slots", "8", "--gpus", "2")
    assert run(monkeypatch, "convert", "--loads", "mtp.csv", "--map", "fast", *to, "a.json") == 2
    asking = ("--loads", "mtp.csv", "--leave-out-layers", "61", "--experts", "7", "--slots", "8", "--gpus", "2")
    assert run(monkeypatch, "convert", *asking, "--map", "fast", "--to", "vllm", "a.json") == 0
    assert "experts 5 to 6 never occur; added without load" in capsys.readouterr().err
    assert set(json.loads(Path("a.json").read_text())[0]) == set(range(7))
    assert run(monkeypatch, "solve", *asking, "--method", "bounds", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)["phy2log"][0]) == set(range(7))
    for words, message in (
        (("--leave-out-layers", "61", "--experts", "4"), "experts is 4; file mtp.csv has 5"),
        (("--leave-out-layers", "3-60,61"), "leave_out_layers names all 2 layers"),
        (("--leave-out-layers", "61-3"), "--leave-out-layers is '61-3'; layers of the model and ranges of them"),
        (
            ("--leave-out-layers", "61", "--experts", "7", "--deployment", "mixtral-ep8"),
            "experts is 7; deployment 'mixtral-ep8' has",
        ),
    ):
        assert run(monkeypatch, "solve", "--loads", "mtp.csv", *SHAPE, *words) == 2
        assert message in capsys.readouterr().err
    for words in (("--deployment", "mixtral-ep8"), ("--slots", "8", "--gpus", "2")):
        assert run(monkeypatch, "convert", "--map", "a.json", "b.json", "--to", "vllm", "--experts", "9", *words) == 2
    said = capsys.readouterr().err
    assert "--experts is 9; deployment 'mixtral-ep8' has 8" in said
    assert "num_slots is 8; at least num_experts = 9" in said


def test_what_a_reader_has_to_say_is_said(tmp_path, monkeypatch, capsys):
    rows = [f"{index},{layer},{expert},{5 * (expert < 4)}" for index, (layer, expert) in enumerate(np.ndindex(2, 16))]
    (tmp_path / "dump.csv").write_text("\n".join([",Layer,Expert,Count", *rows]))
    assert run(monkeypatch, "convert", "--loads", tmp_path / "dump.csv", tmp_path / "trace.npz") == 0
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "dump.csv: columns read: Layer, Expert, Count as tokens; ignored: one without name",
        "dump.csv: looks like the share of one rank of 4: of 16 experts only 0 to 3 have load, the other 12 none in any window "
        "of any of the 2 layers; the loads of all ranks are needed",
    ]
