"""The benchmark: this broker and the usual alternatives do the same job (docs/benchmarks.md)."""
