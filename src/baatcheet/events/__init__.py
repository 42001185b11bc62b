"""Events: the outbox that they are written to, the relay that numbers them, and the live stream."""
