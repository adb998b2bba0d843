"""What is measured, and how; one make target each, results in `benchmarks/results`."""
