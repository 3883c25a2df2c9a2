"""Exact answers about serving: sample averages, token splits, moves, budgets."""
