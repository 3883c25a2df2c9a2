"""From balance to seconds: profiles of how long a step takes, and how they are fitted to timed maps."""
