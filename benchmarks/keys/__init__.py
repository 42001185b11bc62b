"""What providers' keys cost, and whether replacing them is noticed."""
