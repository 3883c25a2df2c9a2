"""Released packages of serving systems: their wheels fetched without dependencies, of which the Python files are kept.

Nothing of them is shipped or installed. A wheel is taken with pip, as it is configured on this machine, unpacked into a cache and
thrown away; the cache is ``EPLB_GAP_HOSTS``, without it ``~/.cache/eplb-gap/hosts``. What is unpacked is only ever imported in
processes of their own (:mod:`eplb_gap.experiments.hosts.shells`), as two versions of one package do not go into one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from eplb_gap.experiments.hosts.command import Parser, one_of

CACHE = "EPLB_GAP_HOSTS"
SECONDS = 900
"""Given to one download."""
MOST_BYTES = 1 << 28
"""Of the Python files of one wheel; the largest has a tenth of it."""
PLATFORMS = tuple(f"manylinux{tag}_x86_64" for tag in ("1", "2014", "_2_17", "_2_28", "_2_31", "_2_34", "_2_35"))
"""The wheels looked for are the same on every machine: Linux, CPython 3.11."""


@dataclass(frozen=True)
class Release:
    """A version of a package that was released.

    Parameters
    ----------
    package, version : str
    """

    package: str
    version: str

    def __str__(self) -> str:
        """Return what pip calls it."""
        return f"{self.package}=={self.version}"


VLLM = tuple(Release("vllm", version) for version in ("0.33.0", "0.24.0", "0.15.1", "0.11.0"))
"""Newest first. The last has no policies that could be replaced."""
SGLANG = Release("sglang", "0.5.23")
VLLM_ASCEND = Release("vllm-ascend", "0.23.0")
VLLM_ASCEND_NEXT = Release("vllm-ascend", "0.26.0rc1")
"""The newest candidate that has a wheel for this platform."""
RELEASES = (*VLLM, SGLANG, VLLM_ASCEND, VLLM_ASCEND_NEXT)


class Unavailable(Exception):
    """A package cannot be had here; the message says why."""


def unpacked(release: Release) -> Path:
    """Return the folder of a release's Python files, fetched if it is not there yet.

    Parameters
    ----------
    release : Release

    Raises
    ------
    Unavailable
        If it cannot be downloaded, or its wheel is not one.
    """
    cache = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "eplb-gap" / "hosts")
    folder = cache / f"{release.package}-{release.version}"
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            wheel, tree = _download(release, Path(scratch)), Path(scratch) / "tree"
            _unpack(wheel, tree)
            if not folder.is_dir():  # another process may have been faster
                shutil.move(tree, folder)
    except OSError as error:
        raise Unavailable(f"{release} cannot be kept in {cache}: {error}") from None
    return folder


def _download(release: Release, into: Path) -> Path:
    tags = [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--retries", "1"]
    command += ["--only-binary", ":all:", "--python-version", "3.11", "--implementation", "cp", *tags]
    command += ["--dest", str(into), str(release)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{release} was not downloaded in {SECONDS} s") from None
    wheels = list(into.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no wheel came"]
        raise Unavailable(f"{release} cannot be downloaded: {said[-1]}")
    return wheels[0]


def _unpack(wheel: Path, tree: Path) -> None:
    """Write the Python files and the metadata of a wheel."""
    left = MOST_BYTES
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                path = PurePosixPath(member.filename)
                if path.suffix != ".py" and path.name not in ("METADATA", "entry_points.txt"):
                    continue
                left -= member.file_size
                if left < 0:
                    raise Unavailable(f"{wheel.name} holds more than {MOST_BYTES} bytes of Python files")
                archive.extract(member, tree)
    except zipfile.BadZipFile as error:
        raise Unavailable(f"{wheel.name} is no wheel: {error}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch every release, or those named, and print where it lies or why it does not; return 1 if one is missing."""
    parser = Parser("packages", "Fetch released packages of serving systems into a cache, and print where they lie.")
    known = {str(release): release for release in RELEASES}
    help = f"of {', '.join(known)}; all by default"
    parser.add_argument("releases", nargs="*", type=one_of(known), metavar="PACKAGE==VERSION", help=help)
    missing = 0
    for release in parser.parse_args(arguments).releases or RELEASES:
        try:
            print(f"{release}  {unpacked(release)}", flush=True)
        except Unavailable as error:
            missing = 1
            print(error, flush=True)
    return missing


if __name__ == "__main__":
    sys.exit(main())
