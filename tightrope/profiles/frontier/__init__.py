"""What points are worth, joined with what they take on this machine."""
