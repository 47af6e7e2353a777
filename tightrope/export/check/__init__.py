"""Whether a board would take the standard graphs, told without one."""
