"""The reference model: what it is, and the program that trains it from nothing. Needs torch."""
