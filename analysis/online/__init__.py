"""Settings for production: controllers tried on the first part of recorded steps, one chosen and reported on the rest."""
