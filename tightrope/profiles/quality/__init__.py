"""What operating points are worth: which race, who leaves, what need not be asked."""
