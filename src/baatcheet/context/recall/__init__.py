"""Recalling the older messages that a new one is about: pure, no I/O.

`analysis` makes index terms and passages of a text, `query` an understanding of the new message, `ranking` orders
what the index found, and `choosing` fits the best of it, verbatim, into a budget.
"""
