"""Guards against invented, repeated and lost speech (docs/guards.md)."""
