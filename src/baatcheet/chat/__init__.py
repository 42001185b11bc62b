"""One turn, told as a story: open → plan → stream → record."""
