"""Tables of loads: a row for every window, layer and expert, as CSV, Parquet or JSON."""
