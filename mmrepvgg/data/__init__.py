"""Data sets: read and check them, and prepare the digits."""
