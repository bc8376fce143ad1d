"""Checkpoint files: read safely, written whole."""
