"""Conversations and their messages: one aggregate."""
