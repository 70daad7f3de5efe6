"""The client packages of twelve provider set-ups against stubs of their APIs."""
