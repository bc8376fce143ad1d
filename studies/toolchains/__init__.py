"""The study of other quantizers in docs/quantization.md: one model as it is and equalized, through other toolchains."""
