"""Recorded loads in: one module per format."""
