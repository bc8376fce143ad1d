"""Predict the classes of image files."""
