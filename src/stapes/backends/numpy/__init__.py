"""The NumPy backend: plain float32 arithmetic, the oracle that other backends are tested against."""
