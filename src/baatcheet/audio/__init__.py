"""Recordings of speech, and their transcriptions."""
