"""What requests take on this machine: measured points, the fit, its error."""
