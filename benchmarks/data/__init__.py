"""What the data layer costs: queries at several sizes, a turn's end, a soak, the pool."""
