"""What a user is told: a list in the app, the live stream, and email."""
