"""The study behind docs/quantization.md: what int8 does to models that are trained differently, and what helps."""
