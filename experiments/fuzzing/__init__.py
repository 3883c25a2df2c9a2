"""Damaged files for every reader, and the samples they are made from."""
