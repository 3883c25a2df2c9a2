"""Copy finished rows from ``runs/`` to ``results/`` and rewrite the manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

from experiments import rows


def publish(runs: Path, results: Path) -> list[str]:
    """Copy every suite of ``runs``, one row per key, and return the suites' names.

    ``MANIFEST.json`` then ties every file of ``results`` to its sha256, and the figures and tables to the files they are
    drawn from.
    """
    names = []
    for path in sorted(runs.glob("*.ndjson")):
        target = results / path.name
        target.unlink(missing_ok=True)
        for row in sorted(rows.read(path), key=lambda r: tuple(map(str, rows.key(r)))):
            rows.append(target, row)
        names.append(path.stem)
    tables = runs / "tables.md"
    if tables.exists():
        shutil.copy(tables, results / "tables.md")
    files = sorted(p for p in results.rglob("*") if p.suffix in {".ndjson", ".npz", ".md"})
    manifest = {
        "files": {p.relative_to(results).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
        "figures": {"paper/figures/*": {"script": "experiments/figures", "rows": [f"{name}.ndjson" for name in names]}},
        "tables": {"tables.md": {"script": "experiments/tables.py", "rows": [f"{name}.ndjson" for name in names]}},
    }
    (results / "MANIFEST.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return names


if __name__ == "__main__":
    published = publish(rows.RUNS, rows.RESULTS)
    if not published:
        sys.exit("runs/ holds no rows; run `make reproduce` first")
    print("published " + ", ".join(published))
