"""Lower bounds and the witnesses that prove them, recomputed exactly."""
