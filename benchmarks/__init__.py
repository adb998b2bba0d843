"""Benchmarks: one make target each, with the results in `benchmarks/results`."""
