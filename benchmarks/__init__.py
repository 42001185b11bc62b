"""What BaatCheet costs, measured: `python -m benchmarks.NAME [--json] [--quick]`. See docs/benchmarks.md."""
