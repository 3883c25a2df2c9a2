"""Arrays in files: NumPy's own from anywhere, and the container of our traces."""
