"""Figures of a user's own loads, and the style that all figures share."""
