"""Guards against invented, repeated and lost speech; order.py asks them (docs/guards.md)."""
