"""How a kernel becomes bytes that a board runs.

`builder` compiles those that a folder's `kernel.py` describes, for each SM of a board. What it
writes lies here in `sm_87` and `sm_110`, so that a board needs no compiler; `launch` reads it.
"""
