"""Model providers: what they can do (profiles), how they are spoken to (adapters), who answers."""
