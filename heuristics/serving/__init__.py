"""Planning for loads to come: histories of windows, forecasts, tokens divided over replicas."""
