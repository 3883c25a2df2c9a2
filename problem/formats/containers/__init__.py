"""What files are made of: JSON, NPY, NPZ, YAML, torch archives, each read with its claims checked."""
