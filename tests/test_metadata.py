"""What the package says of itself, the workflow runs."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_python_of_the_metadata_is_one_of_the_workflow() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    prefix = "Programming Language :: Python :: 3."
    named = [line.removeprefix(prefix) for line in PROJECT["classifiers"] if line.startswith(prefix)]
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in named]
    assert PROJECT["requires-python"] == f">=3.{named[0]}"


def test_no_dependency_is_bounded_from_above_and_the_package_is_not_for_upload() -> None:
    lines = [line for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()) for line in lines]
    assert len(lines) > 20
    bounds = [line.partition(";")[0] for line in lines]  # behind it, for which Python a line is
    assert not [bound for bound in bounds if any(sign in bound for sign in ("<", "==", "~=", "!="))]
    assert "Private :: Do Not Upload" in PROJECT["classifiers"]
