"""Files that are there: written over where they are what the command writes, else only with ``--force``, said before the work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import run
from record_folder import CALL, save

from eplb_gap.analysis import asked
from eplb_gap.analysis.figures.style import drawn, figure
from eplb_gap.cli import outputs
from eplb_gap.problem import Deployment, InputError, LoadTrace, Placement, formats
from eplb_gap.problem.formats.maps.maps import FORMATS, WRITTEN, holds_map

LOADS = np.random.default_rng(5).integers(1, 900, (4, 2, 6))
SHAPE = ("--slots", "8", "--gpus", "4")
SHORT = Deployment(6, 8, 4)
MAP = Placement([[0, 1, 2, 3, 4, 5, 0, 1], [5, 4, 3, 2, 1, 0, 2, 3]], 6)

CASES = [
    ("solve", "--certificate", "out.json"),
    ("explain", "--html", "out.html"),
    ("explain", "--figure", "out.png"),
    ("calibrate", "--out", "folder/config.toml"),
    ("calibrate", "--out", "folder/pareto.pdf"),
    ("calibrate --online", "--out", "out.toml"),
    ("calibrate --online", "--figure", "out.svg"),
    ("calibrate --timed-maps timed.csv", "--out", "out.toml"),
    ("capacity", "--out", "folder/capacity.png"),
    ("replay", "--figure", "out.pdf"),
    ("replay", "--page", "out.html"),
    ("convert --map fast --to vllm", None, "out.json"),
    ("convert --map fast --to sglang --model-layers 2", None, "out.json"),
    ("convert --map fast --to phy2log-npy", None, "out.npy"),
    ("convert --map fast --to tensorrt-llm", None, "out.yaml"),
    ("convert", None, "out.npz"),
    ("record --corpus corpus", "--out", "out.npz"),
    ("record --corpus corpus --out steps.npz", "--checkpoint", "out.pt"),
]
"""A command, the option that names what it writes (None: an argument), and a file that it writes."""
FOREIGN = {
    ".json": b'{"logical_count": [[1, 2, 3, 4]]}',
    ".html": b"<!DOCTYPE html>\n<html><body>mine</body></html>",
    ".png": b"\x89PNG\r\n\x1a\n" + bytes(64),
    ".pdf": b"%PDF-1.4",
    ".svg": b"<svg></svg>",
    ".toml": b'name = "fast"\n[[controller]]\nkind = "none"\n',
    ".yaml": b"num_slots: 8",
    ".npy": Path("table.npy"),
    ".npz": Path("loads.npz"),
    ".pt": Path("loads.pt"),
}
"""What looks like the output of a command and is none."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with loads of several formats; reading them for a question ends the command."""
    monkeypatch.chdir(tmp_path)
    LoadTrace(LOADS).save("loads.npz")
    np.save("loads.npy", LOADS)
    np.save("table.npy", LOADS[0])
    torch.save(torch.from_numpy(LOADS), "loads.pt")
    (tmp_path / "corpus").mkdir()
    Path("timed.csv").write_text("map,seconds\nmap.json,1\n")

    def enough(*_arguments, **_options):
        raise InputError("work begins")

    monkeypatch.setattr(asked, "read_problem", enough)
    monkeypatch.setattr(formats, "read", enough)
    return tmp_path


def words(command, option, path, *more):
    """Return the words of a command that is to write a file."""
    name, *rest = command.split()
    shape = () if name == "record" else ("--loads", "loads.npz", *(SHAPE if rest or name != "convert" else ()))
    target = Path(path).parent if option == "--out" and Path(path).parent.name == "folder" else path
    return [name, *([target] if option is None else [option, target]), *shape, *rest, *more]


@pytest.mark.parametrize(("command", "option", "path"), CASES)
def test_what_is_not_the_commands_own_is_kept(command, option, path, folder, monkeypatch, capsys):
    Path(path).parent.mkdir(exist_ok=True)
    named = f"{option or 'OUT'} is {path}"
    begins = "has no sub-folder" if command.startswith("record") else "work begins"
    alike = FOREIGN[Path(path).suffix]
    for content in (alike if isinstance(alike, bytes) else alike.read_bytes(), Path("loads.npy").read_bytes()):
        Path(path).write_bytes(content)
        assert run(monkeypatch, *words(command, option, path)) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"eplb-gap: {named}, which is ")
        assert said.count("\n") == 1
        assert Path(path).read_bytes() == content
    if option != "--checkpoint":
        assert "or --force to write over it" in said
        assert run(monkeypatch, *words(command, option, path, "--force")) == 2
        assert begins in capsys.readouterr().err
        Path(path).write_bytes(b"")  # nothing is lost
        assert run(monkeypatch, *words(command, option, path)) == 2
        assert begins in capsys.readouterr().err


@pytest.mark.parametrize(("command", "option", "path"), [case for case in CASES if not case[0].startswith("record")])
def test_never_over_what_is_read_whatever_is_said(command, option, path, folder, monkeypatch, capsys):
    Path(path).parent.mkdir(exist_ok=True)
    for link, more in ((Path(path).symlink_to, ()), (Path(path).hardlink_to, ("--force",))):
        link(folder / "loads.npz")
        assert run(monkeypatch, *words(command, option, path, *more)) == 2
        assert "which is the file of --loads too; another one is needed" in capsys.readouterr().err
        Path(path).unlink()
    before = folder / "loads" / Path(path).name
    before.parent.mkdir()
    before.write_bytes(b"a rank's")
    if option != "--out":
        given = [word if word != "loads.npz" else "loads" for word in map(str, words(command, option, before, "--force"))]
        assert run(monkeypatch, *given) == 2
        assert "a file in the folder of --loads; another one is needed" in capsys.readouterr().err


def test_a_call_deep_in_a_record_folder_that_is_read_is_kept(folder, monkeypatch, capsys):
    (call,) = save(folder / "record", [(1, CALL)])
    (folder / "link.npz").symlink_to(call)
    content = call.read_bytes()
    for target in (call, "link.npz"):
        assert run(monkeypatch, "convert", target, "--loads", "record", "--force") == 2
        assert "a file in the folder of --loads; another one is needed" in capsys.readouterr().err
    assert call.read_bytes() == content


def test_a_map_or_profile_that_is_read_is_kept(folder, monkeypatch, capsys):
    formats.write_map("map.json", MAP, SHORT, "vllm")
    Path("costs.toml").write_text("[costs]\n")
    asking = ("--loads", "loads.npz", *SHAPE)
    for given, option in (
        (("convert", *asking, "--map", "map.json", "--to", "vllm", "map.json"), "--map"),
        (("convert", *asking, "--map", "fast", "--previous", "map.json", "--to", "vllm", "map.json"), "--previous"),
        (("explain", *asking, "--map", "map.json", "--html", "map.json"), "--map"),
        (("replay", *asking, "--costs", "costs.toml", "--page", "costs.toml"), "--costs"),
        (("replay", *asking, "--controller", "costs.toml", "--page", "costs.toml"), "costs.toml"),
        (("calibrate", "--online", *asking, "--costs", "costs.toml", "--out", "costs.toml"), "--costs"),
    ):
        assert run(monkeypatch, *given, "--force") == 2
        assert option in capsys.readouterr().err
    assert Path("costs.toml").read_text() == "[costs]\n"


@pytest.mark.parametrize("name", WRITTEN)
def test_a_map_is_known_as_one_of_its_format_and_loads_never_are(name, folder):
    path = Path(f"map{FORMATS[name].suffix}")
    formats.write_map(path, MAP, SHORT, name, [0, 1], 2)
    alike = {"vllm", "phy2log-json"}
    for other in WRITTEN:
        assert holds_map(path, other) is (other == name or {other, name} == alike)
        for loads in ("loads.npz", "loads.npy", "loads.pt"):
            assert not holds_map(Path(loads), other)
    for array in (LOADS[0], LOADS, LOADS * 0 + 2, np.zeros((2, 8)), np.array([[0, 3], [3, 0]]), np.array([5])):
        np.save("table.npy", array)
        Path("table.json").write_text(json.dumps(array.tolist()))
        assert not any(holds_map(Path(f"table{suffix}"), other) for suffix in (".npy", ".json") for other in WRITTEN)


def test_what_a_command_wrote_is_written_over(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    LoadTrace(LOADS).save("loads.npz")
    asking = ("--loads", "loads.npz", *SHAPE)
    for given in (
        ("solve", *asking, "--method", "bounds", "--certificate", "c.json"),
        ("replay", *asking, "--controller", "none", "--page", "p.html", "--figure", "f.png"),
        ("convert", *asking, "--map", "fast", "--to", "vllm", "m.json"),
    ):
        for _ in range(2):
            assert run(monkeypatch, *given) == 0, capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
@pytest.mark.parametrize("signed", [True, False])
def test_a_figure_of_a_command_is_known_and_one_of_the_paper_is_as_it_was(suffix, signed, tmp_path):
    path = tmp_path / "figure"
    path.write_bytes(drawn(figure(1, 1)[0], suffix, signed))
    assert outputs.figure("--figure", path).recognise(path) is signed


def test_rows_go_to_no_file_and_to_no_folder_of_other_tables(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tables.md").write_text("mine")
    for command in (("reproduce",), ("bench", "heuristics")):
        for name, message in (("file", "a folder that can be written to is needed"), ("mine", "holds tables.md and no rows")):
            assert run(monkeypatch, *command, "--runs", tmp_path / name) == 2
            assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine", "tables.md"]
