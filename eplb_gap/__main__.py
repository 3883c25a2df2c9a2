"""``python -m eplb_gap`` is the command ``eplb-gap``."""

from eplb_gap.cli.main import main

main()
