"""Voice activity detection with Silero (docs/guards.md)."""
