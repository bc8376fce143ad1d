"""Testing a model on hardware without Python: its inputs as files, and the score of the outputs that came back."""
