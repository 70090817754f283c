"""Language detection: of a recording, or of each window (docs/languages.md)."""
