"""Pure tools: no I/O, no state, no knowledge of the rest of the house."""
