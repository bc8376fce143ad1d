"""The switch from train form to deploy form, and its verification."""
