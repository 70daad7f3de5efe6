"""What is measured, and how; each script says how it is run."""
