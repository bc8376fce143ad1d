"""The benchmark: models, runtimes and precisions that are timed side by side, on one machine."""
