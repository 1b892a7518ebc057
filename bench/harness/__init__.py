"""What all benchmarks share: systems under test, client processes, statistics, limits, reports."""
