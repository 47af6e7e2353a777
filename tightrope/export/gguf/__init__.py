"""GGUF files, read from their own definition: the file alone decides what the model is."""
