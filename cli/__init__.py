"""The commands of ``eplb-gap``; every module holds those that belong together, heavy imports happen inside them."""
