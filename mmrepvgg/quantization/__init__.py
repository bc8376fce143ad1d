"""int8 files from the quantizers of the runtimes, and the analysis of a model before it is quantized."""
