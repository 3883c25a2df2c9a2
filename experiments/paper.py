"""The paper: its numbers and tables from the published rows, and its text compiled by typst (``make paper``)."""

from __future__ import annotations

import sys
from pathlib import Path

from experiments import paper_numbers, paper_tables, rows
from experiments.rows import Row

FOLDER = rows.ROOT / "paper"


def write_data(measured: list[Row], folder: Path = FOLDER) -> None:
    """Write ``numbers.json`` and ``tables/*.csv``."""
    paper_numbers.write(measured, folder / "numbers.json")
    paper_tables.write(measured, folder / "tables")


def compile_pdf(source: Path = FOLDER / "paper.typ") -> tuple[bytes, list[str]]:
    """Compile the text with typst's own fonts and no date, so that the same files give the same bytes.

    Returns
    -------
    pdf : bytes
    warnings : list of str
    """
    import typst

    compiler = typst.Compiler(str(source), root=str(source.parent), ignore_system_fonts=True)
    pdf, warnings = compiler.compile_with_warnings(format="pdf", timestamp=0)
    return pdf, [str(warning) for warning in warnings]


def main() -> None:
    """Write the data, compile, and print where the paper is."""
    write_data(rows.read_suites(rows.RESULTS))
    pdf, warnings = compile_pdf()
    if warnings:
        sys.exit("\n".join(warnings))
    path = FOLDER / "paper.pdf"
    path.write_bytes(pdf)
    print(path.relative_to(rows.ROOT))


if __name__ == "__main__":
    main()
