"""Where providers' keys are kept: one interface, four stores."""
