"""The interface of faster-whisper 1.2.1."""
