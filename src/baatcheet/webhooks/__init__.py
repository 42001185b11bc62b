"""Telling other servers what has happened: endpoints, signed deliveries, attempts, replays."""
