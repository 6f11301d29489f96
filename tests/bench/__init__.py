"""Where README's figures come from: `python -m tests.bench` starts the real server, loads it, prints the cost."""
