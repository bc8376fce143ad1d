"""The command line. A command parses its arguments, calls the library, and prints one result."""
