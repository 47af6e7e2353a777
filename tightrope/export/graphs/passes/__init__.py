"""Passes over a traced graph; each file is one idea, `graphs/derive.py` puts them in order."""
