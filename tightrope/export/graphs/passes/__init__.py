"""Passes over a traced graph; each file is one idea, `variants` puts them in order."""
