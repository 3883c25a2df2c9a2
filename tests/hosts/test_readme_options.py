"""What the site shows of a host exists in the host's released versions: options, keys of JSON, variables, addresses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from driving import package_of

import eplb_gap.heuristics.plugins as plugins
from eplb_gap.experiments.hosts.packages import SGLANG, VLLM, VLLM_ASCEND, Release
from eplb_gap.heuristics.plugins import recording

ROOT = Path(__file__).resolve().parents[2]
README, PAGE = ROOT / "README.md", ROOT / "docs" / "inside-the-server.md"
OURS = re.compile(r"EPLB_GAP_[A-Z_]+")
OF_PLUGINS = {word for text in (plugins.__doc__, recording.__doc__) for word in OURS.findall(text or "")}
PLACEHOLDERS = {"MODEL", "FOLDER", "FILE", "NAME", "SERVER", "STEPS", "IN", "OUT"}


@dataclass(frozen=True)
class Host:
    """A section of the page, which begins with the host's name in bold.

    Parameters
    ----------
    name : str
    releases : tuple of Release
        Each must have all that the section shows, in one of its files.
    files : tuple of str
        Patterns, from a release's folder on: where options, keys, variables and addresses are declared.
    """

    name: str
    releases: tuple[Release, ...]
    files: tuple[str, ...]


DECLARED_BY_VLLM = ("vllm/engine/arg_utils.py", "vllm/config/parallel.py", "vllm/envs.py", "vllm/entrypoints/cli/*.py")
HOSTS = (
    Host("vLLM", VLLM[:3], DECLARED_BY_VLLM),
    Host(
        "SGLang",
        (SGLANG,),
        (
            "sglang/srt/server_args.py",
            "sglang/srt/arg_groups/**/*.py",
            "sglang/srt/environ.py",
            "sglang/srt/entrypoints/http_server.py",
        ),
    ),
    Host("vLLM-Ascend", (VLLM_ASCEND,), ("vllm_ascend/ascend_config.py", "vllm_ascend/envs.py")),
)
BELOW = {"vLLM-Ascend": VLLM[0]}
"""The release whose command line a host extends: what it does not declare may be declared there."""


def section(text: str, host: str) -> str:
    """Return what the page says of a host: from its name in bold at the start of a line to the end of the code that follows."""
    found = re.search(rf"^\*\*{re.escape(host)}\*\*.*?^```.*?^```$", text, flags=re.M | re.S)
    assert found, f"the page has no section that begins with **{host}** and shows commands"
    return found.group()


def shown(text: str) -> set[str]:
    """Return options, keys of JSON, variables and addresses of a server that a section shows; those of eplb-gap left out."""
    text = re.sub(r"\\\n\s*", " ", text)
    found: set[str] = set()
    for line in text.splitlines():
        if "eplb-gap " in line:
            before, _, command = line.partition("eplb-gap ")
            line = before + " ".join(re.findall(r"#.*", command))
        found |= set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", line))
        found |= {word for word in re.findall(r"\b[A-Z][A-Z0-9_]{3,}(?==|`)", line) if word not in PLACEHOLDERS}
        found |= set(re.findall(r"(?<=\$SERVER)/[a-z_/]+", line))
        for quoted in re.findall(r"'(\{.*?\})'(?=\s|$|`|\))", line):
            found |= set(keys(json.loads(quoted)))
    return {word for word in found if not OURS.fullmatch(word)}


def keys(value: object) -> Iterator[str]:
    """Yield the keys of an object and of those within."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys(inner)


def declares(source: str, word: str) -> bool:
    """Return whether the files of a release declare an option, a key, a variable or an address."""
    name = word.removeprefix("--").replace("-", "_")
    if word.startswith("--"):
        return f'"{word}"' in source or re.search(rf"^\s+{name}\s*:", source, flags=re.M) is not None
    if word.startswith("/"):
        return f'"{word}"' in source
    return re.search(rf"""["']{name}["']|^\s+{name}\s*[:=]""", source, flags=re.M) is not None


def missing(words: set[str], host: Host, release: Release) -> set[str]:
    """Return the words that a release does not declare."""
    below = [BELOW[host.name]] if host.name in BELOW else []
    found = [path for pattern in host.files for path in package_of(release).glob(pattern)]
    found += [path for one in below for pattern in DECLARED_BY_VLLM for path in package_of(one).glob(pattern)]
    source = "\n".join(path.read_text() for path in found)
    return {word for word in words if not declares(source, word)}


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_what_the_page_shows_of_a_host_is_in_its_releases(host):
    words = shown(section(PAGE.read_text(), host.name)) | shown(section(README.read_text(), host.name))
    assert words, f"the page shows no option of {host.name}"
    for release in host.releases:
        print(f"{release}: {', '.join(sorted(words))}")
        assert not missing(words, host, release), f"{release} has no {', '.join(sorted(missing(words, host, release)))}"


def test_variables_of_ours_that_the_pages_show_are_those_of_the_plug_ins():
    found = set(OURS.findall(README.read_text() + PAGE.read_text()))
    known = OF_PLUGINS | {"EPLB_GAP_HOSTS", "EPLB_GAP_PUBLIC_LOADS"}
    assert {word for word in found if word in OF_PLUGINS}
    assert not found - known


INVENTED = """
**vLLM** (range)

```
VLLM_PLUGINS=eplb_gap EPLB_GAP_RECORD=calls vllm serve MODEL --enable-eplb \\
    --eplb-config '{"window_size": 10, "expert_load_dump_dir": "loads"}' --eplb-forever   # --enable-eplb
VLLM_NO_SUCH=1 eplb-gap explain --loads calls --html why.html
```

**SGLang** (`--init-expert-location`)

```
curl -X POST $SERVER/start_expert_distribution_record; curl $SERVER/no_such_address --disaggregation
```

`--not-here`
"""


def test_what_no_release_has_is_found():
    words = shown(section(INVENTED, "vLLM"))
    assert words == {
        "VLLM_PLUGINS",
        "--enable-eplb",
        "--eplb-config",
        "window_size",
        "expert_load_dump_dir",
        "--eplb-forever",
        "VLLM_NO_SUCH",
    }
    for release in VLLM[:3]:
        assert missing(words, HOSTS[0], release) == {"expert_load_dump_dir", "--eplb-forever", "VLLM_NO_SUCH"}
    words = shown(section(INVENTED, "SGLang"))
    assert missing(words, HOSTS[1], SGLANG) == {"/no_such_address", "--disaggregation"}
