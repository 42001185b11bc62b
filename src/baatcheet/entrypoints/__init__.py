"""Composition roots: the API process, the supervisor, the command line. Nothing imports them."""
