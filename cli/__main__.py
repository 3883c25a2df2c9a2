"""``python -m experiments`` is the command ``eplb-gap``."""

from eplb_gap.cli.main import main

main()
