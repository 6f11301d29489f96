"""The soak: the real server under half load for a long time, and nothing of it may grow."""
