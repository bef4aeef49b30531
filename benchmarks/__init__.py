"""Benchmarks: each prints what it does, a table, and one JSON object as its last line."""
