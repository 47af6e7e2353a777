"""TensorRT: engines built on the board, slots on the device, decode as one captured graph."""
