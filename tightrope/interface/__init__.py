"""What crosses between export and runtime: the graphs' names, inputs and outputs, and calls."""
