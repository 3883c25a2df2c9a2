"""Rebalancing over time: controllers stepped through recorded steps, and what each serves, moves and costs."""
