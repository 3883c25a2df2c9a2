"""Controllers: when to plan anew, on which steps, and how many replicas may move; for replays and for the plug-ins."""
