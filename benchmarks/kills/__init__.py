"""What becomes of accepted jobs while the workers that run them are killed."""
