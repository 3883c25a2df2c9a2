"""Where tokens go: proven limits on node visits, and the placements that can be proven best."""
