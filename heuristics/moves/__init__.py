"""From the map in use to a better one with few moves."""
