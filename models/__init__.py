"""Models beside the package, and the programs that train or fetch them."""
