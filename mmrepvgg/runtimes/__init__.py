"""Files for runtimes: one module a format, what they have in common, and the export that writes and verifies them."""
