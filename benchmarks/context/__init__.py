"""How long planning a turn takes, what it finds, and how stable its prompt is. See docs/benchmarks.md."""
