"""What is installed, what the machine can do, and what is wrong. Imports the standard library alone."""
