"""The benchmark: the same job for this broker and for what a user would pick instead (docs/benchmarks.md)."""
