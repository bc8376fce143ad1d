"""Code that only this repository needs: the study of docs/quantization.md, and the table of models."""
