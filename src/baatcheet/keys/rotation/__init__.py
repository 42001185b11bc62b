"""Replacing a provider's keys while they are in use."""
