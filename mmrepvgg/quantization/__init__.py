"""int8: files from the runtimes' own quantizers, what int8 will do to a model, and how models are made to bear it."""
