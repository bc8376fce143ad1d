"""What only this repository itself needs: the study behind docs/quantization.md, and the table of models."""
