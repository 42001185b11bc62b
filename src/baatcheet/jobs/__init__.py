"""Slow work that neither blocks nor vanishes: a queue in PostgreSQL."""
