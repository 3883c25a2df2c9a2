"""What pip makes of small wheels in a folder, no index asked: ours beside hosts of every kind."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from eplb_gap.experiments.hosts import resolve as module
from eplb_gap.experiments.hosts.packages import Release
from eplb_gap.experiments.hosts.resolve import beside

WHEELS = {
    ("ours", "1"): ["engine>=2"],
    ("engine", "1"): [],
    ("engine", "2"): [],
    ("engine", "3"): [],
    ("pinned", "1"): ["engine==2"],
    ("old", "1"): ["engine==1"],
    ("torn", "1"): ["engine==1", "pinned"],
    ("partly", "1"): ["engine", "gone==5 ; python_version > '3'", "extra ; extra == 'more'"],
}
"""What is released, and what it requires."""


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip find these releases alone, engine 3 forbidden by a constraint."""
    for (name, version), requires in WHEELS.items():
        stem = f"{name}-{version}.dist-info"
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {r}" for r in requires)]
        with zipfile.ZipFile(tmp_path / f"{name}-{version}-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{stem}/METADATA", "\n".join(lines) + "\n")
            archive.writestr(f"{stem}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{stem}/RECORD", "")
    (tmp_path / "limits.txt").write_text("# a comment\nengine<3\n")
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", tmp_path), ("CONSTRAINT", tmp_path / "limits.txt")):
        monkeypatch.setenv(f"PIP_{name}", str(value))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")

    def unpacked(release: Release) -> Path:
        folder = tmp_path / str(release)
        zipfile.ZipFile(tmp_path / f"{release.package}-{release.version}-py3-none-any.whl").extractall(folder)
        return folder

    monkeypatch.setattr(module, "unpacked", unpacked)


@pytest.mark.usefixtures("released")
@pytest.mark.parametrize(
    ("host", "answer", "chosen", "reason"),
    [
        ("pinned", "yes", {"pinned": "1", "engine": "2", "ours": "1"}, ""),
        ("old", "no", {}, "engine==1"),
        ("torn", "not alone either", {}, "engine==1"),
        ("partly", "yes, without gone==5", {"engine": "2", "ours": "1"}, ""),
    ],
)
def test_a_host_resolves_beside_us_or_it_is_said_whose_fault_it_is(
    host: str, answer: str, chosen: dict[str, str], reason: str
) -> None:
    said, found = beside([Release(host, "1")], ["ours"])
    assert (said, found.versions) == (answer, chosen)
    assert reason in found.reason


def test_what_is_asked_of_pip_is_our_metadata_and_the_checkout_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def answer(hosts: tuple[Release, ...], ours: list[str]) -> tuple[str, module.Resolved]:
        asked.append(hosts)
        assert 'name = "eplb-gap"' in (Path(*ours) / "pyproject.toml").read_text()
        return ("no", module.Resolved({}, "because")) if len(hosts) > 1 else ("yes", module.Resolved({"torch": "9.9.1"}))

    monkeypatch.setattr(module, "beside", answer)
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "limits.txt"))
    (tmp_path / "limits.txt").write_text("# a comment\nengine<3\n")
    assert module.main([]) == 1
    assert asked == list(module.TOGETHER)
    printed = capsys.readouterr().out
    assert re.search("constraints in force: .*engine<3", printed.splitlines()[0])
    assert printed.count("9.9.1") == len(asked) - 1
    assert "because" in printed
    asked.clear()
    assert module.main(["vllm==0.33.0"]) == 0
    assert asked == [(Release("vllm", "0.33.0"),)]


def test_of_an_installation_what_it_requires_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "eplb_gap-9.dist-info"
    folder.mkdir()
    lines = [
        "Metadata-Version: 2.1",
        "Name: eplb-gap",
        "Version: 9",
        *(f"Requires-Dist: {one}" for one in ("a>=2", "b; extra=='x'")),
    ]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert module.our_requirements(tmp_path / "unused") == ["a>=2"]


def test_what_is_neither_a_checkout_nor_installed_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        module.main([])
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "not installed" in line
