"""Textbook formulations as MILP and CP-SAT, and the processes their solvers run in."""
