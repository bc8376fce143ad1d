"""What int8 will do to a model: simulation, numbers by layer, a verdict, its report and its picture."""
