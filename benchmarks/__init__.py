"""What the package costs, measured; each script says how it is run."""
