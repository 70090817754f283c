"""The interface of openai-whisper 20250625."""
