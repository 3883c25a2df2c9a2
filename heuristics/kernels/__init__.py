"""Compiled searches that planner and engines share."""
