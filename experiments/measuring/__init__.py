"""Cells, the processes they run in, rows and their statistics."""
