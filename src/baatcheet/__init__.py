"""BaatCheet: a self-hosted AI-chat backend that streams, remembers and survives."""

__version__ = "0.1.0"
