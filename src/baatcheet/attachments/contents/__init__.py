"""Opening what strangers uploaded. Everything in this package runs in a sandbox."""
