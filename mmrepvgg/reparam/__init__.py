"""Switch models and checkpoints from train form to deploy form, and compare the two forms."""
