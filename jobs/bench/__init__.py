"""The benchmarks. `program` is the command line."""
