"""The keys' room: providers' keys, their rotations, and who did what to them."""
