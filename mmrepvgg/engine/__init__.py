"""Training and testing by mmengine's Runner: the two runs, their hooks, optimizer wrappers and metrics."""
