"""``python -m experiments`` is the command ``eplb-gap``."""

from experiments.cli import main

main()
