"""What was used: by user, day and model."""
