"""Questions put to heuristics and solvers: suites, rows, the command line and the figures."""
