"""Build the corpus of the shipped trace from text that Debian packages carry.

Run ``python -m eplb_gap.experiments.loads.moe_trace.debian_corpus FOLDER`` on a Debian system: packages are downloaded with
``apt-get download`` and unpacked with ``dpkg-deb -x`` below a temporary folder, nothing is installed.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eplb_gap.problem.errors import InputError

DOCUMENT_BYTES = 20_000  # dictionaries come as one file each; cut into documents of about this size


@dataclass(frozen=True)
class Source:
    """Packages of one domain, the files to take from them and the licence their copyright files state."""

    packages: tuple[str, ...]
    pattern: str
    licence: str


SOURCES = {
    "c_headers": Source(("linux-libc-dev", "libc6-dev"), "usr/include/**/*.h", "GPL-2 with syscall note; LGPL-2.1+"),
    "computing_dictionary": Source(("dict-foldoc", "dict-jargon"), "usr/share/dictd/*.dz", "GFDL-1.1+; public domain"),
    "dictionary": Source(("dict-gcide",), "usr/share/dictd/*.dz", "GPL-2+"),
    "english": Source(
        ("manpages", "manpages-dev", "debian-reference-en"),
        "usr/share/**/*.gz",
        "Linux man-pages copyleft, GPL, BSD by page; GPL-2+",
    ),
    "french": Source(("manpages-fr", "manpages-fr-dev"), "usr/share/man/fr/**/*.gz", "GPL-3+"),
    "german": Source(("manpages-de", "manpages-de-dev"), "usr/share/man/de/**/*.gz", "GPL-3+"),
    "perl": Source(("perl-modules-5.36",), "usr/share/perl/**/*.p[ml]", "GPL-1+ or Artistic"),
    "polish": Source(("manpages-pl",), "usr/share/man/pl/**/*.gz", "GPL-3+"),
    "python": Source(("libpython3.11-stdlib", "libpython3.11-minimal"), "usr/lib/python3.11/**/*.py", "PSF-2"),
    "russian": Source(("manpages-ru",), "usr/share/man/ru/**/*.gz", "GPL-3+"),
    "spanish": Source(("manpages-es",), "usr/share/man/es/**/*.gz", "GPL-3+"),
}


def documents(root: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, UTF-8 text) of every regular file below ``root`` that matches; dictionaries are cut at line ends."""
    for path in sorted(root.glob(pattern)):
        if path.is_symlink() or not path.is_file() or "/doc/" in path.as_posix():
            continue
        data = gzip.decompress(path.read_bytes()) if path.suffix in {".gz", ".dz"} else path.read_bytes()
        name = re.sub(r"[^A-Za-z0-9.+-]", "_", path.relative_to(root).as_posix())
        for number, piece in enumerate(_pieces(data) if path.suffix == ".dz" else [data]):
            try:
                piece.decode("utf-8")
            except UnicodeDecodeError:
                continue  # a few pages and dictionary entries are in legacy encodings
            yield f"{name}.{number:05d}", piece


def _pieces(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + DOCUMENT_BYTES) + 1 or len(data)
        yield data[start:end]
        start = end


def _download(packages: tuple[str, ...], folder: str) -> None:
    command = ["apt-get", "download", "-q", *packages]
    try:
        done = subprocess.run(command, cwd=folder, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise InputError("apt-get is not installed; the corpus is built on a Debian system") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        said = errors[-1] if errors else f"exit code {done.returncode}"
        raise InputError(f"{' '.join(command)} failed ({said}); run `apt-get update` for new package lists, then this again")


def build(out: Path) -> None:
    """Download the packages and write ``out/DOMAIN/DOCUMENT`` and ``out/corpus.json``.

    Raises
    ------
    InputError
        If apt-get is not there or cannot download a package.
    """
    notes = {}
    for domain, source in SOURCES.items():
        target = out / domain
        versions = []
        with tempfile.TemporaryDirectory() as scratch:
            _download(source.packages, scratch)
            target.mkdir(parents=True, exist_ok=True)
            for package in sorted(Path(scratch).glob("*.deb")):
                unpacked = Path(scratch) / package.stem
                subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True)
                versions.append(package.name.rsplit("_", 1)[0].replace("%3a", ":").replace("_", " "))
                for name, text in documents(unpacked, source.pattern):
                    (target / name[-200:]).write_bytes(text)
        notes[domain] = {"source": "Debian 12: " + ", ".join(versions), "licence": source.licence}
        print(f"{domain}: {sum(1 for _ in target.iterdir())} documents")
    (out / "corpus.json").write_text(json.dumps(notes, indent=1), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m eplb_gap.experiments.loads.moe_trace.debian_corpus FOLDER")
    try:
        build(Path(sys.argv[1]))
    except InputError as error:
        sys.exit(str(error))
