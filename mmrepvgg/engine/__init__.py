"""What the Runner needs beside the model."""
