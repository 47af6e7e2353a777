"""The program that trains the reference model from nothing. Needs torch; run it from the root."""
