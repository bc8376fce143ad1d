"""Test a model on hardware without Python: write its inputs as files, and score the outputs that come back."""
