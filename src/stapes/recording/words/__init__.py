"""Word timestamps (docs/words.md)."""
