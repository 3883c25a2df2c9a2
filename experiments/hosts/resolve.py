"""Whether this package can be installed beside the serving systems: pip's resolver is asked, nothing is installed.

``python -m eplb_gap.experiments.hosts.resolve``, or with the systems that are meant, ``... vllm==0.33.0``. For every system pip
chooses versions of it, of this package and of all that they need, for an empty environment of the Python that runs this, as pip
is configured here; the constraints in force are printed. What pip resolves is what ``pip check`` finds consistent once it is
installed. The metadata of a checkout stand for this package, or what an installation says that it requires.

Where pip finds no release of something that a system needs, the system is replaced by the rest of its requirements. Where a
system does not resolve beside us, it is tried alone: a failure that stays is its own.
"""

from __future__ import annotations

import ast
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.hosts.command import Parser, one_of
from eplb_gap.experiments.hosts.packages import SGLANG, VLLM, VLLM_ASCEND, Release, Unavailable, unpacked
from eplb_gap.problem.child import ROOT
from eplb_gap.problem.errors import InputError

TOGETHER: tuple[tuple[Release, ...], ...] = (
    *((release,) for release in VLLM),
    (SGLANG,),
    (VLLM_ASCEND,),
    (VLLM_ASCEND, Release("vllm", VLLM_ASCEND.version)),
)
"""What is resolved beside us. vLLM-Ascend does not require vLLM; it is written for the release of the same number."""
SHOWN = ("torch", "numba", "numpy", "scipy", "protobuf", "typer", "tokenizers")
"""Of the versions chosen, those that differ or that others have stumbled over."""
SECONDS = 1800
"""Given to one resolution: pip downloads every candidate whose metadata it needs."""


@dataclass(frozen=True)
class Resolved:
    """What pip makes of requirements.

    Parameters
    ----------
    versions : mapping of str to str
        Chosen versions by normalised name; empty where there are none.
    reason : str
        Why there are none, in pip's words.
    """

    versions: Mapping[str, str]
    reason: str = ""


def resolve(requirements: Sequence[str]) -> Resolved:
    """Let pip choose versions for an empty environment.

    Parameters
    ----------
    requirements : sequence of str
        As pip takes them: names with versions and markers, folders, wheels.
    """
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        try:
            done = _pip("install", "--dry-run", "--ignore-installed", "--report", str(report), *requirements)
        except subprocess.TimeoutExpired:
            return Resolved({}, f"pip came to no end in {SECONDS} s")
        if done.returncode:
            return Resolved({}, _reason(done.stdout + done.stderr))
        chosen = [entry["metadata"] for entry in json.loads(report.read_text(encoding="utf-8"))["install"]]
    return Resolved({re.sub(r"[-_.]+", "-", one["name"]).lower(): one["version"] for one in chosen})


def beside(hosts: Sequence[Release], ours: Sequence[str]) -> tuple[str, Resolved]:
    """Resolve systems together with us, and find out whose fault it is where that fails.

    Parameters
    ----------
    hosts : sequence of Release
        Installed together.
    ours : sequence of str
        What stands for this package, as pip takes it.

    Returns
    -------
    str
        "yes", "yes, without NAME==VERSION" of which pip finds no release, "no", or "not alone either".
    Resolved
        Of the last attempt with us.
    """
    wanted, left_out = [str(host) for host in hosts], []
    while not (found := resolve([*wanted, *ours])).versions:
        unreleased = re.search(r"No matching distribution found for ([^\s;(]+)", found.reason)
        if unreleased is None or (fewer := _without(wanted, hosts, unreleased[1])) == wanted:
            return ("not alone either" if resolve(wanted).reason else "no"), found
        wanted = fewer
        left_out.append(unreleased[1])
    return ", ".join(["yes", *(f"without {name}" for name in left_out)]), found


def _without(wanted: list[str], hosts: Sequence[Release], unreleased: str) -> list[str]:
    """Leave a requirement out; a system that has it is replaced by its others."""
    fewer = []
    for name in wanted:
        parts = next((_required(host) for host in hosts if str(host) == name), [name])
        others = [part for part in parts if part.partition(";")[0].strip() != unreleased]
        fewer += others if len(others) < len(parts) else [name]
    return fewer


def _required(host: Release) -> list[str]:
    """Return what a release itself requires, without its extras; nothing where it cannot be had."""
    try:
        [found] = distributions(path=[str(unpacked(host))])
    except (Unavailable, ValueError):
        return []
    return _plain(found.requires)


def _plain(requirements: Sequence[str] | None) -> list[str]:
    """Return requirements without those of extras."""
    return [line for line in requirements or [] if not re.search(r";.*\bextra\s*==", line)]


def constraints() -> list[str]:
    """Return the lines of the constraint files that pip is configured to use here."""
    lines: list[str] = []
    for setting in _pip("config", "list").stdout.splitlines():
        name, _, value = setting.partition("=")
        if name.endswith(".constraint"):
            for file in ast.literal_eval(value).split():
                lines += Path(file).read_text(encoding="utf-8").splitlines() if Path(file).is_file() else [file]
    return [line for line in lines if line and not line.startswith("#")]


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)


def _reason(said: str) -> str:
    """Return why pip gives up: the requirements in conflict, or what it calls an error."""
    conflict = re.search(r"The conflict is caused by:\n((?: +\S.*\n)+)", said)
    if conflict:
        return "; ".join(line.strip() for line in conflict[1].splitlines())
    errors = [line.strip().removeprefix("ERROR: ") for line in said.splitlines() if line.strip().startswith("ERROR:")]
    return "; ".join(line for line in errors if not line.startswith("Ignored the following")) or "pip does not say why"


def our_requirements(scratch: Path) -> list[str]:
    """Return what stands for this package, as pip takes it.

    Of a checkout its metadata without its modules, so that nothing is built in it; an installation holds no file that pip could
    take, so what it requires stands for it.

    Parameters
    ----------
    scratch : Path
        An empty folder.

    Raises
    ------
    InputError
        If this is neither a checkout nor installed.
    """
    if not (ROOT / "pyproject.toml").is_file():
        try:
            return _plain(requires("eplb-gap"))
        except PackageNotFoundError:
            raise InputError(f"{ROOT} holds no pyproject.toml, and eplb-gap is not installed; one of them is needed") from None
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if not (ROOT / name).is_file():
            raise InputError(f"{ROOT} holds a pyproject.toml but no {name}; a complete checkout is needed")
        shutil.copy(ROOT / name, scratch)
    (scratch / "eplb_gap").mkdir()
    (scratch / "eplb_gap" / "__init__.py").touch()
    return [str(scratch)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print which systems resolve beside this package, and with which versions; return 1 if one is kept out by us."""
    parser = Parser("resolve", "Ask pip whether this package can be installed beside the serving systems; nothing is installed.")
    known = {str(release): release for hosts in TOGETHER for release in hosts}
    help = f"of {', '.join(known)}: what is resolved together with one of them; all by default"
    parser.add_argument("releases", nargs="*", type=one_of(known), metavar="PACKAGE==VERSION", help=help)
    named = set(parser.parse_args(arguments).releases or known.values())
    kept_out, body, reasons = 0, [], []
    with tempfile.TemporaryDirectory() as scratch:
        try:
            ours = our_requirements(Path(scratch))
        except InputError as error:
            parser.error(str(error))
        for hosts in TOGETHER:
            if named.isdisjoint(hosts):
                continue
            name = " ".join(map(str, hosts))
            print(f"resolving {name}", end=": ", file=sys.stderr, flush=True)
            answer, found = beside(hosts, ours)
            print(answer, found.reason, file=sys.stderr, flush=True)
            kept_out |= answer == "no"
            body.append([name, answer, str(len(found.versions) or ""), *(found.versions.get(package, "") for package in SHOWN)])
            if found.reason:
                reasons.append(f"{name}: {found.reason}")
    limits = ", ".join(constraints()) or "none"
    print(f"Python {platform.python_version()}, {_pip('--version').stdout.split(' from ')[0]}; constraints in force: {limits}\n")
    print(markdown(["installed together with this package", "resolves", "packages", *SHOWN], body), *reasons, sep="\n")
    return kept_out


if __name__ == "__main__":
    sys.exit(main())
