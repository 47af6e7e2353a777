"""`python -m tightrope` is the `tightrope` command."""

from tightrope.cli import main

main()
