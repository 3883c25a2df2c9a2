"""The project's own planner."""
