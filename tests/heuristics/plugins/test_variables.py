"""A setting whose name is misspelt is said once, and everything else stays as it was."""

from __future__ import annotations

import logging
import re
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from eplb_gap.heuristics.plugins import KNOWN, PREFIX, sglang, variables, vllm, vllm_ascend

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def another_process(monkeypatch):
    variables._warn.cache_clear()  # noqa: SLF001
    for name in ("vllm", "sglang"):
        monkeypatch.setitem(sys.modules, name, None)


def ascend(monkeypatch):
    module = ModuleType("vllm_ascend")
    module.__spec__ = ModuleSpec("vllm_ascend", None, is_package=True)
    monkeypatch.setitem(sys.modules, "vllm_ascend", module)
    monkeypatch.setenv("DYNAMIC_EPLB", "true")
    monkeypatch.setattr(vllm_ascend, "_replace", lambda: None)


@pytest.mark.parametrize("host", [vllm, sglang, vllm_ascend], ids=lambda host: host.HOST)
def test_misspelt_variables_are_one_warning_with_the_closest_known_ones(monkeypatch, caplog, host):
    ascend(monkeypatch)
    for name, value in {"METHDO": "host", "RECROD": "x", "QQQ": "1", "EMPTY": ""}.items():
        monkeypatch.setenv(PREFIX + name, value)
    for name in KNOWN:
        monkeypatch.setenv(name, "1")
    host.register()
    host.register()
    vllm.register()  # as where vLLM-Ascend is installed beside vLLM
    assert [line for line in caplog.messages if "no such setting" in line] == [
        "eplb-gap: no such setting: EPLB_GAP_METHDO (is EPLB_GAP_METHOD meant?), EPLB_GAP_QQQ, "
        "EPLB_GAP_RECROD (is EPLB_GAP_RECORD meant?); ignored, the policy answers as without that"
    ]


def test_known_variables_are_no_warning(monkeypatch, caplog):
    for name in KNOWN:
        monkeypatch.setenv(name, "1")
    with caplog.at_level(logging.WARNING, logger="eplb_gap"):
        variables.warn_of_unknown()
    assert not caplog.messages


def test_every_variable_of_this_project_is_known():
    read = [
        path
        for room in ("problem", "heuristics", "solvers", "analysis", "experiments", "cli")
        for path in (ROOT / room).rglob("*.py")
    ]
    words = {word for path in read for word in re.findall(r"EPLB_GAP(?:_[A-Z]+)+", path.read_text(encoding="utf-8"))}
    assert words == set(KNOWN)
