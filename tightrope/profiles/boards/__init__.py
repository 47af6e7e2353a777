"""Measuring on many machines at once: a Dask scheduler, and a worker of ours on each of them."""
