"""The paper: its text compiled by typst, with the numbers, tables and figures of ``make figures`` (``make paper``)."""

from __future__ import annotations

import sys
from pathlib import Path

from eplb_gap.experiments.measuring import rows

FOLDER = rows.ROOT / "paper"


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
    if not isinstance(pdf, bytes):
        raise TypeError(f"typst returned {type(pdf).__name__} where one PDF was asked for")
    return pdf, [str(warning) for warning in warnings]


def main() -> None:
    """Compile, and print where the paper is."""
    pdf, warnings = compile_pdf()
    if warnings:
        sys.exit("\n".join(warnings))
    path = FOLDER / "paper.pdf"
    path.write_bytes(pdf)
    print(path.relative_to(rows.ROOT))


if __name__ == "__main__":
    main()
