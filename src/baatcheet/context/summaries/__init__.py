"""Summaries of what has left the window: sections, and who writes them."""
