"""Providers, one package for each wire protocol."""
