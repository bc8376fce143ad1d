"""The analysis of a model before it is quantized: simulation, numbers by layer, a verdict, a report and a picture."""
