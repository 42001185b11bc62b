"""What reading pictures and documents gets right, and what it costs: `python -m benchmarks.ocr [--json] [--quick]`."""
