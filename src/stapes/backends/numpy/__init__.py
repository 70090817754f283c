"""The NumPy backend: plain float32 arithmetic, against which other backends are tested."""
