"""What the host prepares, in numpy, for export's parity check and for the runtime alike."""
