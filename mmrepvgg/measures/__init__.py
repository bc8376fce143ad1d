"""The measures that all of the package shares: accuracy, difference, time."""
