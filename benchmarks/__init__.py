"""Measurements: `make bench`, or `python -m benchmarks NAME …`. Nothing here is asserted; each prints a table."""
