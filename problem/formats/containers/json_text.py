"""Canonical JSON: the same value is the same bytes."""

from __future__ import annotations

import json
from typing import Any


def render_json(value: Any) -> bytes:
    """Return JSON without spaces and with a line end; keys stay in the order of the value."""
    return (json.dumps(value, separators=(",", ":")) + "\n").encode()
