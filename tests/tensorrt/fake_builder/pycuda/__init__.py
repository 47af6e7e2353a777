"""As much of pycuda as opening a device takes; nothing is computed on it."""
