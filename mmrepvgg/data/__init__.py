"""Data sets: reading them, checking them, preparing the bundled one."""
