"""The measures of the whole package: accuracy, difference, time."""
