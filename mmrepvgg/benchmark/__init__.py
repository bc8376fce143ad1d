"""Models, runtimes and precisions timed side by side, in one run on one machine."""
